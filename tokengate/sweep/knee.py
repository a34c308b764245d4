"""The knee: the smallest setting that can not be told from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from .intervals import LEAST, Interval, interval
from .setting import Setting

__all__ = ["NEAR", "Knee", "compare", "find_knee"]

NEAR = 0.90
"""Least share of the best throughput that a knee has, by the median of the blocks."""


@dataclass(frozen=True, slots=True)
class Knee:
    """Where more workers, or more calls in flight, stop to gain."""

    setting: Setting
    best: Setting
    """The setting of the best median throughput."""
    ratio: Interval
    """Throughput of the knee / throughput of the best, within blocks."""


def find_knee(throughputs: Mapping[Setting, Sequence[float]]) -> Knee | None:
    """The knee of settings -> throughput in each block; None with fewer than `LEAST` blocks.

    The best setting is that of the highest median. In each block every setting's throughput is
    divided by the best one's, so that what slows a block down cancels. A setting *can not be told
    from the best* if the 95 % confidence interval of the median of these ratios reaches 1. The
    knee is the smallest such setting (`Setting.cost`) whose median ratio is at least `NEAR` -
    without that, few and noisy blocks could not tell anything from anything, and would recommend
    the smallest setting of all.
    """
    if not throughputs or min(map(len, throughputs.values())) < LEAST:
        return None
    ordered = sorted(throughputs, key=_cost)
    # max() keeps the first of equals: the smaller one
    best = max(ordered, key=lambda setting: median(throughputs[setting]))
    for setting in ordered:
        ratio = compare(throughputs[setting], throughputs[best])
        if ratio.high is not None and ratio.high >= 1.0 and ratio.median >= NEAR:
            return Knee(setting, best, ratio)
    raise AssertionError("unreachable: the best can not be told from itself")


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """`ours` / `theirs`, block by block. ValueError if they have not the same blocks, or none."""
    return interval([_ratio(mine, other) for mine, other in zip(ours, theirs, strict=True)])


def _ratio(mine: float, other: float) -> float:
    if other:
        return mine / other
    return inf if mine else 1.0  # nothing was answered in that block


def _cost(setting: Setting) -> tuple[int, int, int, bool]:
    return setting.cost
