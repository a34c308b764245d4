"""The median of few measurements, and the interval it lies in with 95 % confidence.

Method: the sign test turned round. Whatever the distribution of the measurements, each lies above
the true median with probability 1/2; so the number of those above is binomial, and the true median
lies between the k-th smallest and the k-th largest with probability 1 - 2 P(B(n, 1/2) < k). k is
the largest for which that is at least 95 %. Nothing is assumed but that the measurements are
independent - not that they are normal, nor even symmetric, which those of a busy machine are not.
W. J. Conover, Practical Nonparametric Statistics, section 3.2; H. A. David and H. N. Nagaraja,
Order Statistics, section 7.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb
from statistics import median

__all__ = ["CONFIDENCE", "LEAST", "Interval", "interval", "quantile"]

CONFIDENCE = 0.95
LEAST = 6
"""Measurements below which no interval has that confidence: all n lie on one side of the median
with probability 2 / 2**n, and that is more than 5 % up to n = 5."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and between what it lies with 95 % confidence; None: too few measurements."""

    median: float
    low: float | None
    high: float | None


def interval(measured: Sequence[float]) -> Interval:
    """Median and confidence interval. ValueError if nothing was measured."""
    if not measured:
        raise ValueError("no measurements: they have no median")
    ranked = sorted(measured)
    rank = _rank(len(ranked))
    if rank == 0:
        return Interval(median(ranked), None, None)
    return Interval(median(ranked), ranked[rank - 1], ranked[-rank])


def quantile(measured: Sequence[float], share: float) -> float:
    """The nearest-rank quantile: the smallest value that `share` of all do not exceed."""
    if not measured:
        raise ValueError("no measurements: they have no quantiles")
    ranked = sorted(measured)
    return ranked[max(1, ceil(share * len(ranked))) - 1]


def _rank(count: int) -> int:
    """K of the method; 0: there is no such interval."""
    outside, rank = 0, 0
    # exact in whole numbers: 2 P(B(n, 1/2) < k) = 2 * outside / 2**n
    while 2 * (outside + comb(count, rank)) <= (1 - CONFIDENCE) * 2**count:
        outside += comb(count, rank)
        rank += 1
    return rank
