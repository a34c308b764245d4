"""How late an event loop runs, by a task of its own that sleeps a millisecond at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

PERIOD = 0.001


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank. ValueError for no values."""
    if not values:
        raise ValueError("no values to rank")
    return sorted(values)[ceil(share * len(values)) - 1]


@dataclass(frozen=True, slots=True)
class Lag:
    """Lateness of the beats of one run, in seconds.

    `p99` counts every beat once, however late it was. `p99_anywhen` is for a callback that
    became ready at some moment of the run: a stall counts for as many such moments as it lasts.
    """

    beats: int
    p99: float
    p99_anywhen: float
    longest: float


class Beats:
    """A heartbeat task on the running loop, from `start` to `stop`."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """Beats so far."""
        return len(self._late)

    async def start(self) -> None:
        """Start the task, and return once it sleeps."""
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0)

    def stop(self) -> Lag:
        """End the task. A beat that is due by now is counted with the lateness it has."""
        if self._task is None:
            raise RuntimeError("the heartbeat was not started")
        self._task.cancel()
        self._task = None
        late = time.perf_counter() - self._due
        if late > 0 or not self._late:
            self._late.append(max(0.0, late))
        return summary(self._late)

    async def _beat(self) -> None:
        while True:
            self._due = time.perf_counter() + PERIOD
            await asyncio.sleep(PERIOD)
            # max(): a loop's timer may fire a clock tick early.
            self._late.append(max(0.0, time.perf_counter() - self._due))


def summary(late: Sequence[float]) -> Lag:
    """The quantiles of these latenesses."""
    moments = [each - step * PERIOD for each in late for step in range(int(each / PERIOD) + 1)]
    return Lag(
        beats=len(late),
        p99=percentile(late, 0.99),
        p99_anywhen=percentile(moments, 0.99),
        longest=max(late),
    )
