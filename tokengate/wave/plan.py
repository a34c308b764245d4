"""Which wave sizes a run goes through."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

FIRST_WAVE = 4
DEFAULT_WAVES = 15
WARM_UP_TOKENS = 256
MAX_WAVES = 24
"""Wave 24 is 33,554,432 tokens; beyond that a wave no longer fits a machine's memory."""


def doubling(waves: int, first: int = FIRST_WAVE) -> tuple[int, ...]:
    """Sizes of `waves` waves in tokens, each twice the one before: 4, 8, 16 ...

    Raises ValueError unless 1 <= waves <= MAX_WAVES.
    """
    if not 1 <= waves <= MAX_WAVES:
        raise ValueError(f"the number of waves must be 1 to {MAX_WAVES}, not {waves}")
    return tuple(first << step for step in range(waves))


def doubling_up_to(most: int, first: int = FIRST_WAVE) -> tuple[int, ...]:
    """Sizes doubling from `first` for as long as they do not exceed `most` tokens.

    Raises ValueError if not even the first wave fits, or there would be more than MAX_WAVES.
    """
    if most < first:
        raise ValueError(f"the largest wave must have at least {first} tokens, not {most}")
    return doubling((most // first).bit_length(), first)


def checked(sizes: Sequence[int]) -> tuple[int, ...]:
    """`sizes` as a plan; raises ValueError unless they are positive and strictly rising."""
    plan = tuple(sizes)
    if not plan:
        raise ValueError("no wave sizes given")
    if plan[0] < 1:
        raise ValueError(f"a wave needs at least one token, not {plan[0]}")
    for smaller, larger in pairwise(plan):
        if larger <= smaller:
            raise ValueError(f"wave sizes must rise, but {smaller} is followed by {larger}")
    return plan
