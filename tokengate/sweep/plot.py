"""A sweep as one picture. Needs matplotlib, as `wave/plot.py` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from tokengate.wave.environment import Environment
from tokengate.wave.plot import frame

from .intervals import Interval
from .record import Row, SweepRun

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["draw", "write_plot"]

GREY = "#667080"
GREEN = "#2e7d32"
COLOURS = ("#1f5fa8", "#d9691e", "#1b8a7a", "#7b4ea3", "#b8324f", "#8a6d1b")
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 4.6
"""Inches for each lane."""


def write_plot(path: Path, run: SweepRun, environment: Environment) -> None:
    """Draw `run` to `path`; its ending chooses the format, png for instance.

    Raises ValueError if nothing was measured or the format is unknown, OSError if the file
    cannot be written.
    """
    draw(run, environment).savefig(path, bbox_inches="tight", pad_inches=0.25)


def draw(run: SweepRun, environment: Environment) -> Figure:
    """The picture of `run`; raises ValueError if no block is complete.

    A column for each lane: throughput and p99 latency by calls in flight, a curve for each number
    of workers and way of pinning, bars for the 95 % confidence intervals, a ring round the knee.
    """
    rows = run.rows()
    if not rows:
        raise ValueError("no block is complete: there is nothing to draw")
    lanes = run.lanes
    figure = Figure(figsize=(WIDTH * len(lanes) + 1.6, 8.6), dpi=120, facecolor="white")
    axes = figure.subplots(
        2, len(lanes), sharex=True, sharey="row", squeeze=False, gridspec_kw={"hspace": 0.14}
    )
    figure.subplots_adjust(left=0.11, right=0.97, top=0.84, bottom=0.2, wspace=0.12)
    figure.text(0.02, 0.975, _headline(run), fontsize=15, fontweight="bold", va="top")
    figure.text(
        0.02,
        0.93,
        f"TokenGate sweep: {len(run.settings)} settings, {len(run.complete)} blocks in random "
        f"order{' (stopped early)' if run.interrupted else ''}; bars: 95 % confidence",
        fontsize=10,
        color=GREY,
        va="top",
    )
    figure.text(
        0.02,
        0.012,
        _wrapped(environment.describe(), 62 * len(lanes)),
        fontsize=8.5,
        color=GREY,
        va="bottom",
    )
    styles = _styles(rows)
    for column, lane in enumerate(lanes):
        mine = [row for row in rows if row.setting.lane == lane]
        rate, latency = axes[0][column], axes[1][column]
        rate.set_title(f"{lane} lane", loc="left", fontsize=12, fontweight="bold", pad=8)
        _prepare(rate, mine)
        _prepare(latency, mine)
        _draw_curves(rate, mine, styles, latency=False)
        _draw_curves(latency, mine, styles, latency=True)
        knee = run.knee(lane)
        if knee is not None:
            [found] = [row for row in mine if row.setting == knee.setting]
            for where, value in (
                (rate, found.throughput.median),
                (latency, found.latency_p99.median * 1e3),
            ):
                where.plot(
                    knee.setting.in_flight,
                    value,
                    "o",
                    markersize=14,
                    mfc="none",
                    mec=GREEN,
                    mew=2.2,
                    zorder=5,
                )
        latency.set_xlabel("calls in flight", fontsize=10)
    axes[0][0].set_ylabel("tokens per second", fontsize=10)
    axes[1][0].set_ylabel("p99 latency, ms", fontsize=10)
    axes[0][0].set_ylim(bottom=0)
    axes[1][0].set_yscale("log")
    axes[0][0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes[1][0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[1][0].yaxis.set_minor_formatter(NullFormatter())
    handles: dict[str, Artist] = {}
    for each in axes[0]:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = sorted(handles, key=lambda label: int(label.split()[0]))  # by workers
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="lower left",
        bbox_to_anchor=(0.1, 0.07),
        ncols=min(len(handles), 4 * len(lanes)),
        frameon=False,
        fontsize=9.5,
    )
    return figure


def _headline(run: SweepRun) -> str:
    knee = run.knee()
    if knee is None:
        return "Too few blocks for a knee"
    setting = knee.setting
    workers = f"{setting.workers} worker{'s' if setting.workers != 1 else ''}"
    return f"Knee: {setting.lane} lane, {workers}, {setting.in_flight} in flight"


def _styles(rows: list[Row]) -> dict[tuple[int, str], tuple[str, str]]:
    """Colour and marker of each number of workers and way of pinning, alike in all columns."""
    kinds = sorted({(row.setting.workers, row.setting.pin) for row in rows})
    return {
        kind: (COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)])
        for place, kind in enumerate(kinds)
    }


def _prepare(axes: Axes, rows: list[Row]) -> None:
    places = sorted({row.setting.in_flight for row in rows})
    frame(axes)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_curves(
    axes: Axes, rows: list[Row], styles: dict[tuple[int, str], tuple[str, str]], *, latency: bool
) -> None:
    pins = {row.setting.pin for row in rows}
    for kind, (colour, marker) in styles.items():
        mine = [row for row in rows if (row.setting.workers, row.setting.pin) == kind]
        if not mine:
            continue
        mine.sort(key=lambda row: row.setting.in_flight)
        scale = 1e3 if latency else 1.0
        found = [row.latency_p99 if latency else row.throughput for row in mine]
        workers, pin = kind
        label = f"{workers} worker{'s' if workers != 1 else ''}"
        axes.errorbar(
            [row.setting.in_flight for row in mine],
            [each.median * scale for each in found],
            yerr=[
                [_below(each) * scale for each in found],
                [_above(each) * scale for each in found],
            ],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.8,
            elinewidth=1.1,
            capsize=2.5,
            label=label if len(pins) == 1 else f"{label}, {pin}",
        )


def _below(found: Interval) -> float:
    return 0.0 if found.low is None else found.median - found.low


def _above(found: Interval) -> float:
    return 0.0 if found.high is None else found.high - found.median


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)
