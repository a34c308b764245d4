"""The sweet spot - the smallest wave at full speed - and the plateau behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

SWEET_SHARE = 0.95
"""The sweet spot is the smallest wave whose median throughput is this share of the best."""
PLATEAU_SHARE = 0.90
"""The plateau runs from there to the largest wave that still has this share of the best."""


@dataclass(frozen=True, slots=True)
class SweetSpot:
    """Wave sizes in tokens, throughputs (medians over repeats) in tokens per second."""

    tokens: int
    throughput: float
    best_tokens: int
    best_throughput: float
    plateau_end: int
    """The largest wave on the plateau; the plateau begins at `tokens`."""
    dips: tuple[int, ...]
    """Waves between the two ends that fall below the plateau nevertheless."""


def find_sweet_spot(throughputs: Mapping[int, Sequence[float]]) -> SweetSpot:
    """Find both in wave size -> throughput of each repeat.

    Raises ValueError if there is no wave, or a wave without a repeat.
    """
    if not throughputs:
        raise ValueError("no waves measured")
    medians = {tokens: median(throughputs[tokens]) for tokens in sorted(throughputs)}
    # max() keeps the first of equals: the smaller wave.
    best_tokens = max(medians, key=lambda tokens: medians[tokens])
    best = medians[best_tokens]
    sweet = min(tokens for tokens, rate in medians.items() if rate >= SWEET_SHARE * best)
    on_plateau = [tokens for tokens, rate in medians.items() if rate >= PLATEAU_SHARE * best]
    end = max(on_plateau)
    return SweetSpot(
        tokens=sweet,
        throughput=medians[sweet],
        best_tokens=best_tokens,
        best_throughput=best,
        plateau_end=end,
        dips=tuple(t for t in medians if sweet < t < end and t not in on_plateau),
    )
