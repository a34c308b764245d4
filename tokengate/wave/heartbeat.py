"""How late an event loop runs: a heartbeat on the loop itself.

Method: beats are due on a fixed grid, one every 5 ms of `time.monotonic`, the first at the
moment of `start()`. When the loop gets round to the heartbeat, every beat due by then is counted
with its own lateness, now minus due. A stall of 50 ms therefore counts as ten late beats of 50,
45, 40 ... ms, not as a single one: the quantiles answer "how long would a callback that
became ready at some random moment have waited?". Because the first beat is due at `start()`,
work done on the loop before its first `await` - creating tokens, building a `gather` -
counts as well. An idle asyncio loop shows about 1 ms, the grain of its selector's timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

INTERVAL = 0.005
"""Seconds between beats: fine enough for 100 beats in half a second, and 200 wake-ups a second
are too few to slow what is measured."""


@dataclass(frozen=True, slots=True)
class LoopLag:
    """Lateness of the beats of one measurement, in seconds."""

    p50: float
    p99: float
    max: float
    beats: int


class Heartbeat:
    """Measures the lag of the running loop from `start()` to `stop()`; use on that loop only."""

    def __init__(
        self, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make one for beats every `interval` seconds of `clock`."""
        self._interval = interval
        self._clock = clock
        self._first = 0.0
        self._late: list[float] = []
        self._handle: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin; the first beat is due now. Raises RuntimeError with no loop running."""
        loop = asyncio.get_running_loop()
        self._late = []
        self._first = self._clock()
        self._handle = loop.call_soon(self._beat, loop)

    def stop(self) -> LoopLag:
        """End and return what was seen; beats overdue at this moment count as late until now.

        Raises RuntimeError if the heartbeat was not started.
        """
        if self._handle is None:
            raise RuntimeError("the heartbeat was not started")
        self._handle.cancel()
        self._handle = None
        self._count_due(self._clock())
        return summarise(self._late)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock()
        self._count_due(now)
        # max(): a timer may fire a clock tick early.
        self._handle = loop.call_later(max(0.0, self._next_due() - now), self._beat, loop)

    def _next_due(self) -> float:
        # From the number of beats, not by adding up, so that rounding does not move the grid.
        return self._first + len(self._late) * self._interval

    def _count_due(self, now: float) -> None:
        while (due := self._next_due()) <= now:
            self._late.append(now - due)


def summarise(late: Sequence[float]) -> LoopLag:
    """Quantiles by nearest rank; with fewer than 100 beats p99 is the maximum."""
    if not late:
        raise ValueError("no beats to summarise")
    ranked = sorted(late)
    return LoopLag(
        p50=ranked[ceil(0.50 * len(ranked)) - 1],
        p99=ranked[ceil(0.99 * len(ranked)) - 1],
        max=ranked[-1],
        beats=len(ranked),
    )
