"""One setting, measured once: so many calls in flight for a while, each answered one replaced."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tokengate.machine.cgroups import Throttling, throttling
from tokengate.wave.heartbeat import Heartbeat
from tokengate.wave.measure import TimedToken

from .intervals import quantile

__all__ = ["Sample", "measure"]

TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Sample:
    """What one setting did in one block. Times in seconds."""

    tokens: int
    """Answered within the time measured."""
    failed: int
    """Of all that were made: raised, or a wrong result."""
    problem: str | None
    """What went wrong with the first of these."""
    seconds: float
    latency_p50: float
    """From the call to the moment its awaiter goes on."""
    latency_p99: float
    lag_p99: float
    """Lateness of the event loop."""
    throttled: float | None
    """So long the control group stood still, summed over CPUs; None: no quota, or not readable."""

    @property
    def throughput(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(slots=True)
class _Book:
    """What the clients write down."""

    latencies: list[float] = field(default_factory=list)
    results: list[tuple[int, object]] = field(default_factory=list)
    waiting: int = 0
    """Clients that have had no answer yet."""
    all_answered: asyncio.Event = field(default_factory=asyncio.Event)
    recording: bool = False
    over: bool = False


async def measure(
    submit: Callable[[int], TimedToken[object]],
    in_flight: int,
    *,
    warm_up: float,
    seconds: float,
    is_right: Callable[[int, object], str | None],
) -> Sample:
    """Keep `in_flight` calls under way for `warm_up` seconds, then go on and measure `seconds`.

    The warm-up counts from when each client has had an answer, so that workers that take long to
    start are there.

    submit: makes call i. is_right: what is wrong with the result of call i, None: nothing; it is
    asked when the measuring is over. Returns when all calls are answered; cancelling this cancels
    them.
    """
    gc.collect()
    book, numbers = _Book(waiting=in_flight), count()
    clients = [asyncio.ensure_future(_client(submit, numbers, book)) for _ in range(in_flight)]
    heartbeat = Heartbeat()
    try:
        await book.all_answered.wait()
        await asyncio.sleep(warm_up)
        before = _throttled()
        heartbeat.start()
        start = time.perf_counter()
        book.recording = True
        await asyncio.sleep(seconds)
        book.recording = False
        elapsed = time.perf_counter() - start
        lag = heartbeat.stop()
        after = _throttled()
        book.over = True
        await asyncio.gather(*clients)
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    problems = await _problems(book.results, is_right)
    # a setting so slow that nothing was answered: no faster than the time it was given
    latencies = book.latencies or [elapsed]
    return Sample(
        tokens=len(book.latencies),
        failed=len(problems),
        problem=problems[0] if problems else None,
        seconds=elapsed,
        latency_p50=quantile(latencies, 0.5),
        latency_p99=quantile(latencies, TAIL),
        lag_p99=lag.p99,
        throttled=None if before is None or after is None else after.seconds - before.seconds,
    )


async def _client(
    submit: Callable[[int], TimedToken[object]], numbers: count[int], book: _Book
) -> None:
    first = True
    while not book.over:
        index = next(numbers)
        begin = time.perf_counter()
        result: Any
        try:
            result = await submit(index)
        except Exception as error:  # the client goes on: a failure is counted
            result = error
            await asyncio.sleep(0)  # it may have been refused at once, again and again
        if book.recording:
            book.latencies.append(time.perf_counter() - begin)
        book.results.append((index, result))
        if first:
            first = False
            book.waiting -= 1
            if not book.waiting:
                book.all_answered.set()


async def _problems(
    results: list[tuple[int, object]], is_right: Callable[[int, object], str | None]
) -> list[str]:
    found = []
    for number, (index, result) in enumerate(results):
        if number % 256 == 0:
            await asyncio.sleep(0)  # the loop must hear Ctrl-C
        problem = is_right(index, result)
        if problem is not None:
            found.append(problem)
    return found


def _throttled() -> Throttling | None:
    return throttling(Path("/"))
