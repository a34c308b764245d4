"""A run as one picture. The only module that needs matplotlib."""

from __future__ import annotations

from math import log2
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from .environment import Environment
from .record import WaveRow, WaveRun
from .sweet_spot import PLATEAU_SHARE, SweetSpot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE = "#1f5fa8"
TEAL = "#1b8a7a"
PURPLE = "#7b4ea3"
ORANGE = "#d9691e"
GREY = "#667080"
PLATEAU = "#e3f1e1"
GREEN = "#2e7d32"

LABEL_WIDTH = 1 / 17
"""Least distance of two labels on the common axis, as a share of it: nearer ones would touch."""


def write_plot(path: Path, run: WaveRun, environment: Environment) -> None:
    """Draw `run` to `path`; its ending chooses the format, png for instance.

    Raises ValueError if nothing was measured or the format is unknown, OSError if the file
    cannot be written.
    """
    draw(run, environment).savefig(path, bbox_inches="tight", pad_inches=0.25)


def draw(run: WaveRun, environment: Environment) -> Figure:
    """The picture of `run`; raises ValueError if nothing was measured."""
    sweet = run.sweet_spot()
    totals = run.totals()
    if sweet is None or totals is None:
        raise ValueError("nothing was measured: there is nothing to draw")
    rows = run.rows()
    figure = Figure(figsize=(11, 10), dpi=120, facecolor="white")
    rate, latency, parallel = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [1.35, 1, 1.1], "hspace": 0.22}
    )
    figure.subplots_adjust(left=0.09, right=0.965, top=0.862, bottom=0.105)
    figure.text(
        0.09,
        0.965,
        f"Sweet spot: {sweet.tokens:,} tokens at once, {sweet.throughput:,.0f} per second",
        fontsize=17,
        fontweight="bold",
        va="top",
    )
    figure.text(
        0.09,
        0.925,
        f"TokenGate wave benchmark: {len(rows)} wave{'s' if len(rows) != 1 else ''}, "
        f"{totals.ok:,} tokens ok, {totals.failed:,} failed, {totals.seconds:.1f} s in all"
        + (" (stopped early)" if run.interrupted else ""),
        fontsize=10.5,
        color=GREY,
        va="top",
    )
    figure.text(0.09, 0.018, environment.describe(), fontsize=8.5, color=GREY, va="bottom")

    for axes in (rate, latency, parallel):
        _prepare(axes, sweet)
    _draw_throughput(rate, run, rows, sweet)
    _draw_latency(latency, rows)
    _draw_parallelism(parallel, rows, environment)
    _label_waves(parallel, rows)
    figure.align_ylabels()
    return figure


def frame(axes: Axes) -> None:
    """What the pictures have in common: a scale of doublings, a faint grid, no box around."""
    axes.set_xscale("log", base=2)
    axes.grid(visible=True, color="#e4e7ec", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#aab1bd")
    axes.tick_params(colors="#3c4553", labelsize=9.5)


def _prepare(axes: Axes, sweet: SweetSpot) -> None:
    frame(axes)
    if sweet.plateau_end > sweet.tokens:
        axes.axvspan(sweet.tokens, sweet.plateau_end, color=PLATEAU, zorder=0)
    axes.axvline(sweet.tokens, color=GREEN, linewidth=1.4, linestyle=(0, (4, 3)), zorder=1)


def _draw_throughput(axes: Axes, run: WaveRun, rows: list[WaveRow], sweet: SweetSpot) -> None:
    x = [row.sample.tokens for row in rows]
    rates = [[sample.throughput for sample in run.samples[size]] for size in x]
    if run.repeats > 1:
        axes.fill_between(
            x, [min(r) for r in rates], [max(r) for r in rates], color=BLUE, alpha=0.18, lw=0
        )
        _title(axes, "Throughput", "line: median; band: slowest to fastest repeat")
    else:
        _title(axes, "Throughput", "higher is better")
    axes.set_ylabel("tokens per second", fontsize=10)
    axes.plot(x, [median(r) for r in rates], color=BLUE, marker="o", markersize=5, linewidth=2.2)
    axes.plot(
        sweet.tokens, sweet.throughput, "o", markersize=13, mfc="none", mec=GREEN, mew=2.4, zorder=5
    )
    # Room above the curve for the two labels, which thereby never meet it.
    top = max(max(sample.throughput for sample in run.all_samples()), sweet.best_throughput)
    axes.set_ylim(0, top * 1.3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    label = f"sweet spot: {sweet.tokens:,}"
    if sweet.plateau_end > sweet.tokens:
        dips = ", dips aside" if sweet.dips else ""
        label += f"; plateau to {sweet.plateau_end:,} ({PLATEAU_SHARE:.0%} of the best{dips})"
    # Beside the line, on the side with more room.
    first, last = x[0], x[-1]
    right = sweet.tokens**2 <= first * last
    axes.annotate(
        label,
        (sweet.tokens, top * 1.26),
        xytext=(6 if right else -6, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        fontsize=10,
        fontweight="bold",
        color=GREEN,
    )


def _draw_latency(axes: Axes, rows: list[WaveRow]) -> None:
    x = [row.sample.tokens for row in rows]
    y = [row.sample.latency * 1e3 for row in rows]
    _title(axes, "Latency", "wall time of the wave / tokens; lower is better")
    axes.set_ylabel("ms per token", fontsize=10)
    axes.plot(x, y, color=PURPLE, marker="o", markersize=5, linewidth=2.2)
    axes.set_ylim(0, max(y) * 1.12)


def _draw_parallelism(axes: Axes, rows: list[WaveRow], environment: Environment) -> None:
    x = [row.sample.tokens for row in rows]
    overlap = [row.sample.overlap for row in rows]
    cpu = [row.sample.cpu for row in rows]
    cores = environment.usable_cpus
    _title(axes, "Overlap and CPU")
    axes.set_ylabel("seconds per wall second", fontsize=10)
    axes.set_yscale("log", base=2)
    axes.axhline(
        cores, color=GREY, linewidth=1.2, linestyle=(0, (1, 2)), label=f"usable CPUs: {cores}"
    )
    for values, colour, marker, label in (
        (overlap, TEAL, "o", "Overlap: seconds in tasks"),
        (cpu, ORANGE, "s", "CPU: cores really at work"),
    ):
        axes.plot(x, values, color=colour, marker=marker, markersize=5, linewidth=2.2, label=label)
    low = min(0.5, *overlap, *cpu)
    high = max(*overlap, *cpu, float(cores))
    axes.set_ylim(low * 0.85, high * 1.3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    # In the row of the title, where no line can run through it.
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.01),
        ncols=3,
        frameon=False,
        fontsize=9.5,
        borderaxespad=0.0,
        borderpad=0.2,
    )


def _title(axes: Axes, what: str, remark: str = "") -> None:
    axes.set_title(what, loc="left", fontsize=12, fontweight="bold", color="#20262f", pad=7)
    axes.text(
        1.0,
        1.025,
        remark,
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=9.5,
        color=GREY,
    )


def _label_waves(axes: Axes, rows: list[WaveRow]) -> None:
    sizes = [row.sample.tokens for row in rows]
    axes.xaxis.set_major_locator(FixedLocator(_spaced(sizes)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    # A single wave has no width of its own on a logarithmic axis.
    axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    axes.set_xlabel("wave size: tokens submitted at once", fontsize=10.5, labelpad=8)


def _spaced(sizes: list[int]) -> list[int]:
    """Those of `sizes`, from the smallest, whose labels keep clear of each other."""
    axis = log2(sizes[-1] / sizes[0])
    kept = sizes[:1]
    for size in sizes[1:]:
        if log2(size / kept[-1]) >= LABEL_WIDTH * axis:
            kept.append(size)
    return kept
