"""A sweep as JSON, and as a profile."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokengate.profile import LaneProfile, Profile, this_build, this_machine
from tokengate.wave.environment import Environment

from .knee import Knee
from .record import Row, SweepRun

__all__ = ["as_json", "as_profile", "write_json"]

FORMAT = 1
"""Goes up when a reader of an older file would misread a newer one."""


def as_json(run: SweepRun, environment: Environment) -> dict[str, Any]:
    """Everything measured and derived; times in seconds, shares and ratios as plain numbers."""
    overall = run.knee()
    return {
        "benchmark": "tokengate sweep",
        "format": FORMAT,
        "environment": asdict(environment),
        "machine": asdict(this_machine()),
        "python": asdict(this_build()),
        "task": run.task,
        "seconds": run.seconds,
        "seed": run.seed,
        "blocks": {"planned": run.blocks, "complete": len(run.complete)},
        "interrupted": run.interrupted,
        "failed": run.failures()[0],
        "settings": [_row(run, row) for row in run.rows()],
        "knees": {lane: _knee(knee) for lane in run.lanes if (knee := run.knee(lane))},
        "knee": _knee(overall) if overall else None,
    }


def write_json(path: Path, run: SweepRun, environment: Environment) -> None:
    """Write it to `path`; raises OSError if that cannot be written."""
    path.write_text(json.dumps(as_json(run, environment), indent=2) + "\n", encoding="utf-8")


def as_profile(run: SweepRun) -> Profile | None:
    """What the sweep recommends, for this machine; None while there is no knee, or tokens failed.

    The pinning of each lane is that of its knee.
    """
    overall = run.knee()
    if overall is None or run.failures()[0]:
        return None
    lanes = {}
    for lane in run.lanes:
        knee = run.knee(lane)
        assert knee is not None
        best = knee.setting
        lanes[lane] = LaneProfile(best.workers, best.in_flight, best.pin)
    return Profile(
        machine=this_machine(),
        python=this_build(),
        task=run.task,
        lane=overall.setting.lane,
        lanes=lanes,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _row(run: SweepRun, row: Row) -> dict[str, Any]:
    plain = asdict(row)
    plain.update(plain.pop("setting"))
    plain["samples"] = [
        {**asdict(each), "throughput": each.throughput} for each in run.samples(row.setting)
    ]
    return plain


def _knee(knee: Knee) -> dict[str, Any]:
    return {**asdict(knee.setting), "best": asdict(knee.best), "ratio": asdict(knee.ratio)}
