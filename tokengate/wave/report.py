"""A run as text: the table, the totals, the sweet spot, and how to read them."""

from __future__ import annotations

from .environment import Environment
from .record import PlainComparison, Totals, WaveRow, WaveRun
from .sweet_spot import PLATEAU_SHARE, SWEET_SHARE, SweetSpot

COLUMNS: tuple[tuple[str, int], ...] = (
    ("Wave", 4),
    ("Tokens", 10),
    ("OK", 10),
    ("Fail", 5),
    ("Time", 9),
    ("Tok/s", 9),
    ("Lat(ms)", 8),
    ("Conc", 6),
    ("Overlap", 8),
    ("SumTask(ms)", 13),
    ("CPU", 6),
    ("Lag99(ms)", 9),
    ("x2", 6),
)
"""Name and width of each column. Time in seconds; CPU, Conc, Overlap and x2 are ratios."""

MEANING = (
    "How to read it: CPU is how many cores were really at work (CPU seconds per wall second); "
    "Overlap also counts tasks that only wait for the GIL or a core, so it is no measure of "
    "parallelism."
)

BUSY_MACHINE = 0.9
"""A plain loop on a core of its own has a CPU of 1; below this share the machine was shared."""


def header_lines() -> list[str]:
    """The two lines above the table's rows."""
    names = " ".join(name.rjust(width) for name, width in COLUMNS)
    return [names, "-" * len(names)]


def row_line(row: WaveRow) -> str:
    """One wave as a line of the table."""
    sample = row.sample
    cells = (
        f"{row.wave}",
        f"{sample.tokens:,}",
        f"{sample.ok:,}",
        f"{sample.failed:,}",
        f"{sample.seconds:.4f}",
        f"{sample.throughput:,.0f}",
        f"{sample.latency * 1e3:.4f}",
        _ratio(row.conc),
        _ratio(sample.overlap),
        f"{sample.task_seconds * 1e3:,.2f}",
        _ratio(sample.cpu),
        f"{sample.lag_p99 * 1e3:.2f}",
        _ratio(row.x2),
    )
    return " ".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True))


def title(run: WaveRun, tasks: tuple[str, ...]) -> str:
    """What is about to be measured."""
    waves = f"{len(run.sizes)} wave{'s' if len(run.sizes) != 1 else ''}"
    repeats = f", each {run.repeats} times" if run.repeats > 1 else ""
    return (
        f"TokenGate wave benchmark: {waves}{repeats}, {run.planned:,} tokens; "
        f"tasks in turn: {', '.join(tasks)}"
    )


def summary_lines(run: WaveRun, environment: Environment) -> list[str]:
    """Everything below the table."""
    totals = run.totals()
    sweet = run.sweet_spot()
    if totals is None or sweet is None:
        return ["Stopped before the first wave was complete: nothing was measured."]
    lines = []
    if run.interrupted:
        lines.append(
            f"Stopped early: {totals.tokens:,} of {run.planned:,} tokens were measured; "
            "the figures are of those."
        )
    lines += _totals_lines(totals)
    lines += [f"  {count:,} x {kind}" for kind, count in run.failures().most_common(5)]
    lines += _sweet_lines(sweet, run.repeats)
    comparison = run.plain_comparison()
    if comparison is not None:
        lines += _plain_lines(comparison)
    lines.append(f"Measured on {environment.describe()}.")
    lines.append(MEANING)
    return lines


def _totals_lines(totals: Totals) -> list[str]:
    conc, conc_wave = totals.peak_conc
    overlap, overlap_wave = totals.peak_overlap
    cpu, cpu_wave = totals.peak_cpu
    return [
        f"Tokens {totals.tokens:,}: {totals.ok:,} ok, {totals.failed:,} failed; "
        f"total time {totals.seconds:.3f} s, average latency {totals.latency * 1e3:.4f} ms "
        "per token",
        f"Peak concurrency {conc:.2f}x (wave {conc_wave}), "
        f"peak overlap {overlap:.2f}x (wave {overlap_wave}), "
        f"peak CPU {cpu:.2f} cores (wave {cpu_wave})",
    ]


def _sweet_lines(sweet: SweetSpot, repeats: int) -> list[str]:
    median = "median " if repeats > 1 else ""
    spot = f"Sweet spot: {sweet.tokens:,} tokens at {sweet.throughput:,.0f} tok/s"
    if sweet.tokens == sweet.best_tokens:
        spot += f" (the best {median}throughput of all waves)"
    else:
        spot += (
            f" (smallest wave within {1 - SWEET_SHARE:.0%} of the best {median}throughput, "
            f"{sweet.best_throughput:,.0f} tok/s at {sweet.best_tokens:,})"
        )
    if sweet.plateau_end == sweet.tokens:
        return [spot, f"Plateau: none, no larger wave has {PLATEAU_SHARE:.0%} of the best"]
    plateau = (
        f"Plateau: from {sweet.tokens:,} to {sweet.plateau_end:,} tokens "
        f"(the largest wave with {PLATEAU_SHARE:.0%} of the best)"
    )
    if sweet.dips:
        plateau += f"; below that in between: {', '.join(f'{t:,}' for t in sweet.dips)}"
    return [spot, plateau]


def _plain_lines(comparison: PlainComparison) -> list[str]:
    lines = [
        f"Plain for loop, same {comparison.calls:,} calls: {comparison.plain_seconds:.3f} s "
        f"(CPU {comparison.plain_cpu:.2f}); the waves took {comparison.token_seconds:.3f} s "
        f"(CPU {comparison.token_cpu:.2f}) = {comparison.ratio:.2f}x the plain loop"
    ]
    if comparison.plain_cpu < BUSY_MACHINE:
        lines.append(
            f"Caution: the plain loop got {comparison.plain_cpu:.0%} of a core. Other programs "
            "kept this machine busy: neither the ratio nor the times above are to be relied on."
        )
    return lines


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
