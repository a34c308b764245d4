"""One wave, timed from the first submit to the last result; the same calls in a plain loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .children import children_cpu_seconds
from .heartbeat import Heartbeat, LoopLag

PLAIN_SLICE = 512
"""Calls of the plain loop between two looks at the event loop, which must hear Ctrl-C."""

ResultT_co = TypeVar("ResultT_co", covariant=True)


class TimedToken(Awaitable[ResultT_co], Protocol[ResultT_co]):
    """What a wave needs of a token: it can be awaited and says how long it executed."""

    @property
    def run_time(self) -> float | None:
        """Seconds of execution; None if the function never started."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one wave took."""

    seconds: float
    """Wall time, first submit to last result."""
    cpu_seconds: float
    """CPU time of the whole process meanwhile, all its threads, and of its worker processes."""
    task_seconds: float
    """Execution times of all tokens added up."""
    lag: LoopLag


@dataclass(frozen=True, slots=True)
class PlainTiming:
    """What a plain loop took."""

    seconds: float
    cpu_seconds: float
    """Well below `seconds` if other programs kept the loop off its core."""


async def time_wave(
    submit: Callable[[int], TimedToken[object]], tokens: int
) -> tuple[Timing, list[object]]:
    """Submit tokens 0 to `tokens` - 1 at once, wait for all; the timing, and results by index.

    An exception of a token is its result here. Cancelling this cancels the tokens.
    """
    # Rubbish left by what ran before is not part of this wave's time.
    gc.collect()
    # Idle before and after, so that it does not matter how long the looking takes.
    elsewhere = children_cpu_seconds()
    heartbeat = Heartbeat()
    heartbeat.start()
    cpu_start = time.process_time()
    start = time.perf_counter()
    try:
        batch = [submit(index) for index in range(tokens)]
        results: list[object] = list(await asyncio.gather(*batch, return_exceptions=True))
    finally:
        seconds = time.perf_counter() - start
        cpu_seconds = time.process_time() - cpu_start
        lag = heartbeat.stop()
    cpu_seconds += max(0.0, children_cpu_seconds() - elsewhere)
    task_seconds = sum(token.run_time or 0.0 for token in batch)
    return Timing(seconds, cpu_seconds, task_seconds, lag), results


async def time_plain(call: Callable[[int], object], calls: int) -> tuple[PlainTiming, list[object]]:
    """Make calls 0 to `calls` - 1 in a plain ``for`` loop on this thread; its timing, the results.

    Blocks the loop for a slice of calls at a time; what happens between slices is not counted.
    """
    gc.collect()
    seconds = cpu_seconds = 0.0
    results: list[object] = []
    for first in range(0, calls, PLAIN_SLICE):
        last = min(first + PLAIN_SLICE, calls)
        cpu_start = time.process_time()
        start = time.perf_counter()
        # append() as a user's loop would, and as the wave keeps its results too.
        for index in range(first, last):
            results.append(call(index))  # noqa: PERF401
        seconds += time.perf_counter() - start
        cpu_seconds += time.process_time() - cpu_start
        await asyncio.sleep(0)
    return PlainTiming(seconds, cpu_seconds), results
