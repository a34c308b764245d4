"""A run as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .environment import Environment
from .record import PlainComparison, WaveRow, WaveRun, WaveSample

FORMAT = 1
"""Goes up when a reader of an older file would misread a newer one."""


def as_json(run: WaveRun, tasks: tuple[str, ...], environment: Environment) -> dict[str, Any]:
    """Everything measured and derived; all times in seconds, shares and ratios as plain numbers."""
    totals = run.totals()
    sweet = run.sweet_spot()
    comparison = run.plain_comparison()
    return {
        "benchmark": "tokengate wave",
        "format": FORMAT,
        "environment": asdict(environment),
        "tasks": list(tasks),
        "sizes": list(run.sizes),
        "repeats": run.repeats,
        "interrupted": run.interrupted,
        "waves": [_wave(row, run.samples[row.sample.tokens]) for row in run.rows()],
        "totals": asdict(totals) if totals else None,
        "sweet_spot": asdict(sweet) if sweet else None,
        "plain_loop": _plain_loop(comparison) if comparison else None,
    }


def write_json(path: Path, run: WaveRun, tasks: tuple[str, ...], environment: Environment) -> None:
    """Write it to `path`; raises OSError if that cannot be written."""
    text = json.dumps(as_json(run, tasks, environment), indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _plain_loop(comparison: PlainComparison) -> dict[str, Any]:
    return {
        **asdict(comparison),
        "ratio": comparison.ratio,
        "token_cpu": comparison.token_cpu,
        "plain_cpu": comparison.plain_cpu,
    }


def _wave(row: WaveRow, repeats: list[WaveSample]) -> dict[str, Any]:
    return {
        "wave": row.wave,
        "conc": row.conc,
        "x2": row.x2,
        **_sample(row.sample),
        "repeats": [_sample(sample) for sample in repeats],
    }


def _sample(sample: WaveSample) -> dict[str, Any]:
    return {
        **asdict(sample),
        "failed": sample.failed,
        "throughput": sample.throughput,
        "latency": sample.latency,
        "overlap": sample.overlap,
        "cpu": sample.cpu,
    }
