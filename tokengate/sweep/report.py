"""A sweep as text: the table, the knees, and how to read them."""

from __future__ import annotations

from tokengate.wave.environment import Environment

from .intervals import CONFIDENCE, LEAST, Interval
from .knee import NEAR, Knee
from .record import Row, SweepRun

__all__ = ["header_lines", "row_line", "summary_lines", "table_lines", "title"]

COLUMNS: tuple[tuple[str, int], ...] = (
    ("Lane", 11),
    ("Workers", 7),
    ("InFlight", 8),
    ("Pin", 4),
    ("Tok/s", 9),
    ("95%", 17),
    ("OfBest", 6),
    ("Lat50(ms)", 9),
    ("Lat99(ms)", 9),
    ("95%", 17),
    ("Lag99(ms)", 9),
    ("Thr(s)", 6),
)
"""Name and width. The first 95% belongs to Tok/s, the second to Lat99."""

MEANING = (
    "How to read it: each figure is the median of the blocks, 95% the confidence interval of the "
    "one before it; OfBest is the throughput as a share of the lane's best, compared within "
    "blocks; Lag99 is how late the event loop was, Thr how long a CPU quota stopped everything. "
    "* marks the knee of a lane: the smallest setting that can not be told from the best."
)


def title(run: SweepRun) -> str:
    """What is about to be measured."""
    return (
        f"TokenGate sweep: {len(run.settings)} setting{'s' if len(run.settings) != 1 else ''} "
        f"({', '.join(run.lanes)}) x {run.blocks} blocks in random order, {run.seconds:g} s each; "
        f"task {run.task}; seed {run.seed}"
    )


def header_lines() -> list[str]:
    """The two lines above the table's rows."""
    names = " ".join(name.rjust(width) for name, width in COLUMNS)
    return [f"  {names}", "-" * (len(names) + 2)]


def row_line(row: Row, *, knee: bool) -> str:
    """One setting as a line of the table."""
    setting = row.setting
    cells = (
        setting.lane,
        f"{setting.workers:,}",
        f"{setting.in_flight:,}",
        setting.pin,
        f"{row.throughput.median:,.0f}",
        _between(row.throughput, 1, ",.0f"),
        f"{row.ratio.median:.2f}",
        f"{row.latency_p50 * 1e3:,.2f}",
        f"{row.latency_p99.median * 1e3:,.2f}",
        _between(row.latency_p99, 1e3, ",.2f"),
        f"{row.lag_p99 * 1e3:.2f}",
        "-" if row.throttled is None else f"{row.throttled:.2f}",
    )
    line = " ".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True))
    return f"{'*' if knee else ' '} {line}"


def table_lines(run: SweepRun) -> list[str]:
    """The whole table; empty without a complete block."""
    rows = run.rows()
    if not rows:
        return []
    knees = {knee.setting for lane in run.lanes if (knee := run.knee(lane))}
    return header_lines() + [row_line(row, knee=row.setting in knees) for row in rows]


def summary_lines(run: SweepRun, environment: Environment) -> list[str]:
    """Everything below the table."""
    complete = len(run.complete)
    if not complete:
        return ["Stopped before the first block was complete: there is nothing to compare."]
    lines = []
    if run.interrupted:
        lines.append(
            f"Stopped early: the figures are of the {complete} complete "
            f"block{'s' if complete != 1 else ''} of {run.blocks}."
        )
    failed, problem = run.failures()
    if failed:
        lines.append(f"{failed:,} tokens failed, the first with {problem}: trust nothing above.")
    overall = run.knee()
    if overall is None:
        lines.append(
            f"No knee: {complete} blocks are too few for intervals of {CONFIDENCE:.0%} confidence, "
            f"{LEAST} are the least."
        )
    else:
        lines += [f"Knee of the {lane} lane: {_told(run.knee(lane))}" for lane in run.lanes]
        if len(run.lanes) > 1:
            lines.append(f"Of all: {overall.setting.lane} lane, {_told(overall)}")
    if any(row.throttled for row in run.rows()):
        lines.append("A CPU quota stopped the process meanwhile: the figures are those under it.")
    lines.append(f"Measured on {environment.describe()}.")
    lines.append(MEANING)
    return lines


def _told(knee: Knee | None) -> str:
    assert knee is not None
    setting, best = knee.setting, knee.best
    text = f"{setting.workers} worker{'s' if setting.workers != 1 else ''}, "
    text += f"{setting.in_flight} in flight"
    if setting.pin != "auto":
        text += f", pin {setting.pin}"
    if setting == best:
        return f"{text} (the best)"
    return (
        f"{text}: {knee.ratio.median:.2f} ({_between(knee.ratio, 1, '.2f')}) of the best, {best}; "
        f"the smallest whose interval reaches 1, with {NEAR:.0%} of it or more"
    )


def _between(found: Interval, scale: float, form: str) -> str:
    if found.low is None or found.high is None:
        return "-"
    return f"{found.low * scale:{form}} - {found.high * scale:{form}}"
