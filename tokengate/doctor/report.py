"""The doctor's report for people. What is wrong comes last, next to the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from tokengate.doctor.examine import Examination
from tokengate.machine.lists import format_cpus
from tokengate.machine.snapshot import Topology

__all__ = ["lines"]

WIDTH = 96


def lines(found: Examination) -> Iterator[str]:
    """The report, line by line."""
    python, package = found.python, found.tokengate
    yield f"TokenGate {package['version']} on {python['implementation']} {python['version']}"
    yield ""
    yield from _block(
        "Versions",
        [
            ("Python", f"{python['version']}, {python['build']}, {python['compiler']}"),
            ("", python["executable"]),
            ("system", f"{python['system']}, {python['libc']}"),
            ("core built with", f"Cython {package['cython']}, {package['compiler']}"),
            ("core build", package["build"]),
            *((name, version or "not installed") for name, version in found.packages.items()),
        ],
    )
    gil = "on" if found.gil["enabled"] else "off"
    build = "free-threaded build" if found.gil["free_threaded"] else "ordinary build"
    yield from _block(
        "GIL",
        [
            ("state", f"{gil} ({build})"),
            ("switch interval", f"{found.gil['switch_interval'] * 1e3:g} ms"),
            *((f"import {name}", outcome) for name, outcome in found.imported.items()),
        ],
    )
    yield from _block("CPUs", [*_cpus(found)])
    yield from _block(
        "Lanes",
        [
            (report.lane, f"{'yes' if report.available else 'no '}  {report.why}")
            for report in found.lanes
        ],
    )
    if found.limits:
        yield from _block(
            "Limits",
            [
                (name, "unlimited" if limit is None else str(limit))
                for name, limit in found.limits.items()
            ],
        )
    yield from _findings(found)


def _cpus(found: Examination) -> Iterator[tuple[str, str]]:
    cpus = found.cpus
    for name, count in found.counts.items():
        yield name, "not to be had" if count is None else str(count)
    if cpus is None:
        yield "TOKENGATE_CPUS", "wrong, see below"
        return
    yield "affinity", _listed(cpus.affinity)
    yield "cpuset", "none" if cpus.cpuset is None else _listed(cpus.cpuset)
    yield "quota", "none" if cpus.quota is None else f"{cpus.quota:g} CPUs of time"
    if found.throttling is not None:
        stopped = found.throttling
        yield "throttled", f"{stopped.seconds:.1f} s in {stopped.periods} periods so far"
    yield "TOKENGATE_CPUS", cpus.override or "not set"
    yield "usable", _listed(cpus.cpus)
    yield "physical cores", str(cpus.physical_cores) + (_shared(cpus) if cpus.smt else "")
    yield "workers for", f"{cpus.count} (decided by: {cpus.source}; exactly {cpus.capacity:g})"
    yield 'pin="core"', found.pinning


def _listed(cpus: tuple[int, ...]) -> str:
    return f"{len(cpus)} ({format_cpus(cpus)})"


def _shared(cpus: Topology) -> str:
    groups = [format_cpus(core) for core in cpus.cores if len(core) > 1]
    more = f" and {len(groups) - 4} more" if len(groups) > 4 else ""
    return f"; siblings share one: {', '.join(groups[:4])}{more}"


def _block(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows) + 2
    yield title
    for name, text in rows:
        yield f"  {name:{width}}{text}".rstrip()
    yield ""


def _findings(found: Examination) -> Iterator[str]:
    if not found.findings:
        yield "Nothing to complain about."
        return
    for finding in found.findings:
        yield from wrap(f"{finding.level.upper()}: {finding.what}", WIDTH, subsequent_indent="  ")
        yield from wrap(
            f"To do: {finding.advice}", WIDTH, initial_indent="  ", subsequent_indent="  "
        )
    yield ""
    warnings = sum(finding.level == "warning" for finding in found.findings)
    errors = len(found.findings) - warnings
    yield f"{_count(errors, 'error')}, {_count(warnings, 'warning')}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
