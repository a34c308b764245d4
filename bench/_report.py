"""How figures are shown: tables for a person, JSON for a program."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import sysconfig
from pathlib import Path
from typing import Any

import _gate
from _figures import Figure, Line, Section
from _harness import Options, gil_enabled

HEADS = ("figure", "median", "unit", "lowest", "highest", "must reach", "margin", "verdict")
LOAD_AT_START = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
"""Runnable threads over the last minute, before this process added its own."""
BUSY = 0.3

PACKAGES = ("py-tokengate", "uvloop", "anyio", "asgiref", "psutil")


def machine() -> dict[str, Any]:
    """The interpreter and the packages measured, nothing that names the machine."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "free_threaded_build": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "gil_enabled": gil_enabled(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "tokengate": _gate.origin(),
        "usable_cpus": usable_cpus(),
        "switch_interval": sys.getswitchinterval(),
        "load_at_start": LOAD_AT_START,
        "packages": versions,
    }


def usable_cpus() -> int | None:
    """The CPUs this process may run on, by its affinity where the system knows one."""
    affinity = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() if affinity is None else len(affinity(0))


def heading(options: Options) -> str:
    """The lines above all tables: what ran, and how."""
    facts = machine()
    gil = "with the GIL" if facts["gil_enabled"] else "free-threaded"
    lines = [
        f"{facts['implementation']} {facts['python']} {gil}, {facts['system']} "
        f"{facts['architecture']}, {facts['usable_cpus']} usable CPUs; "
        f"TokenGate: {facts['tokengate']}",
        f"{options.rounds} rounds, interleaved; medians; garbage collector "
        + ("on" if options.collector else "off"),
        "margin: the figure against its target, 1.00 or more passes",
    ]
    if LOAD_AT_START is not None and LOAD_AT_START > BUSY:
        lines.append(
            f"BUSY: a load of {LOAD_AT_START:.1f} from other work at the start; where CPUs are "
            "short, a contestant of many threads gets more of them; don't quote"
        )
    if options.quick or options.rounds < 5:
        lines.append("QUICK: fewer rounds or smaller counts than the table asks for; don't quote")
    return "\n".join(lines)


def render(section: Section) -> str:
    """One section as text: its explanation, what each contestant cost, the figures, the skips."""
    parts = [f"== {section.name} ==", section.explanation]
    for title, lines in section.lines.items():
        parts.append(table((title, "count", "median", "lowest", "highest"), map(line_row, lines)))
    if section.figures:
        parts.append(table(HEADS, map(figure_row, section.figures)))
    parts += section.remarks
    parts += [f"SKIPPED: {reason}" for reason in section.skipped]
    return "\n".join(parts) + "\n"


def line_row(line: Line) -> tuple[str, ...]:
    """One contestant, in microseconds a call."""
    values = (statistics.median(line.micros), min(line.micros), max(line.micros))
    return (line.name, f"{line.count:,}", *map(number, values))


def figure_row(figure: Figure) -> tuple[str, ...]:
    """One figure against its target."""
    target = figure.target
    bound = margin = ""
    if target is not None:
        bound = f"{target.sense} {number(target.bound)}"
        if target.aim is not None:
            bound += f" (aim {number(target.aim)})"
        value = target.margin(figure.value)
        margin = number(value) if math.isfinite(value) else "-"
    what = f"{figure.what} ({figure.note})" if figure.note else figure.what
    low, high = min(figure.samples), max(figure.samples)
    return (
        what,
        number(figure.value),
        figure.unit,
        number(low),
        number(high),
        bound,
        margin,
        figure.verdict.upper() if figure.verdict == "falls short" else figure.verdict,
    )


def number(value: float) -> str:
    """Three significant digits or all whole ones, with thousands apart."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def table(heads: tuple[str, ...], rows: Any) -> str:
    """Left-aligned words, right-aligned numbers, two blanks between columns."""
    body = [heads, *rows]
    widths = [max(len(row[column]) for row in body) for column in range(len(heads))]
    lines = []
    for row in body:
        cells = [
            cell.rjust(width) if cell[:1].isdigit() or cell[:1] == "-" else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def write_json(path: Path, options: Options, sections: list[Section]) -> None:
    """Everything measured, with all samples, to `path`."""
    data = {
        "machine": machine(),
        "rounds": options.rounds,
        "quick": options.quick,
        "collector": options.collector,
        "sections": [section.as_dict() for section in sections],
    }
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
