"""What a million waiting tokens hold, what is given back when they end, and what is kept."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import _gate
from _cli import main
from _figures import Figure, Section, Target
from _harness import Missing, Options, collector, progress
from _process import resident_bytes

if TYPE_CHECKING:
    from tokengate import Coordinator, Token

WORKERS = 2
WARM_UP = 1_000

EXPLANATION = """\
All tokens wait: the workers sit in the function until it is let go. The arguments, one int each,
and the caller's list that holds the tokens exist before the first reading, so neither is
counted. Bytes are resident memory of the whole process against the reading before round 1 (so
whatever a round leaves behind counts against the next), in a process of its own whose heap
nothing else has stretched. Given back: how much of the growth is gone after the tokens have
ended, been dropped by the caller, and one garbage collection. Kept: what a round that ends as it
began has added, a token."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The process at one moment."""

    resident: int
    blocks: int
    """Memory blocks Python's allocator has given out."""
    objects: int
    """Objects the garbage collector tracks."""

    @classmethod
    def now(cls) -> Reading:
        """Collect garbage, then read."""
        gc.collect()
        return cls(resident_bytes(), sys.getallocatedblocks(), len(gc.get_objects()))


@dataclass(frozen=True, slots=True)
class Round:
    """The readings of one round of `count` calls."""

    waiting: Reading
    ended: Reading
    """Ended, but still in the caller's list with their results."""
    dropped: Reading


class Subject(Protocol):
    """A dispatcher whose workers sit in `held` until they are let go."""

    def call(self, value: int) -> Any:
        """Make one call that waits."""

    async def finish(self, handles: Iterable[Any]) -> None:
        """Return when all these calls have ended."""

    def early(self, handle: Any) -> bool:
        """Whether that call has ended before it was let go."""

    def result(self, handle: Any) -> int:
        """The result of a call that has ended."""


class Gate:
    """The function every call runs: it holds its worker until the gate is open."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def held(self, value: int) -> int:
        """Return `value` once the gate is open."""
        self.open.wait()
        return value


class Tokens:
    """TokenGate, on a coordinator of its own."""

    def __init__(self, coordinator: Coordinator, gate: Gate) -> None:
        self._coordinator = coordinator
        self._guarded = _gate.guard(gate.held, "bench.held").options(coordinator=coordinator)

    def call(self, value: int) -> Token[int]:
        """Make one token."""
        return self._guarded(value)

    async def finish(self, handles: Iterable[Token[int]]) -> None:
        """Drain the coordinator, which adds nothing to the tokens themselves."""
        await self._coordinator.drain()

    def early(self, handle: Token[int]) -> bool:
        """Whether the token has ended."""
        return handle.done()

    def result(self, handle: Token[int]) -> int:
        """The token's result."""
        return handle.result()


class Futures:
    """`loop.run_in_executor`, the peer."""

    def __init__(self, pool: ThreadPoolExecutor, gate: Gate) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._held = gate.held

    def call(self, value: int) -> asyncio.Future[int]:
        """Make one future."""
        return self._loop.run_in_executor(self._pool, self._held, value)

    async def finish(self, handles: Iterable[asyncio.Future[int]]) -> None:
        """Await one after the other; most have ended by then."""
        for handle in handles:
            await handle

    def early(self, handle: asyncio.Future[int]) -> bool:
        """Whether the future is done."""
        return handle.done()

    def result(self, handle: asyncio.Future[int]) -> int:
        """The future's result."""
        return handle.result()


async def measure(
    subject: Subject, gate: Gate, count: int, rounds: int
) -> tuple[Reading, list[Round]]:
    """The reading before everything, and those of each round of `count` calls at once.

    Raises AssertionError if a call ended before it was let go, or with a wrong result.
    """
    values = list(range(count))
    handles: list[Any] = [None] * count
    await cycle(subject, gate, handles, values[:WARM_UP])
    before = Reading.now()
    taken: list[Round] = []
    for number in range(1, rounds + 1):
        progress(f"round {number}/{rounds}: {count:,} waiting calls")
        taken.append(await cycle(subject, gate, handles, values))
    progress("")
    return before, taken


async def cycle(subject: Subject, gate: Gate, handles: list[Any], values: list[int]) -> Round:
    """Make a call for each of `values`, let them run, drop them; the readings in between."""
    gate.open.clear()
    for index, value in enumerate(values):
        handles[index] = subject.call(value)
    waiting = Reading.now()
    early = sum(map(subject.early, handles[: len(values)]))
    gate.open.set()
    await subject.finish(handles[: len(values)])
    ended = Reading.now()
    wrong = sum(subject.result(handle) != i for i, handle in enumerate(handles[: len(values)]))
    if early or wrong:
        raise AssertionError(f"{early} calls ended too early, {wrong} with a wrong result")
    for index in range(len(values)):
        handles[index] = None
    return Round(waiting, ended, Reading.now())


async def measure_tokens(count: int, rounds: int) -> tuple[Reading, list[Round]]:
    """`measure` of TokenGate. Raises `Missing` without it."""
    _gate.load()
    from tokengate import Coordinator

    gate = Gate()
    async with Coordinator(thread_workers=WORKERS, name="bench-memory") as coordinator:
        return await measure(Tokens(coordinator, gate), gate, count, rounds)


async def measure_futures(count: int, rounds: int) -> tuple[Reading, list[Round]]:
    """`measure` of run_in_executor."""
    gate = Gate()
    with ThreadPoolExecutor(WORKERS) as pool:
        return await measure(Futures(pool, gate), gate, count, rounds)


def run(options: Options) -> Section:
    """Measure the memory row of the table. Meant for a process that has done nothing else."""
    section = Section("memory", EXPLANATION)
    count = options.pick(1_000_000, 200_000)
    with collector(options.collector):
        try:
            before, rounds = asyncio.run(measure_tokens(count, options.rounds))
        except Missing as missing:
            section.skipped.append(str(missing))
        else:
            section.figures += figures(count, before, rounds)
        # Last, in a heap already stretched, which if anything makes the peer look smaller.
        peers = options.pick(200_000, 50_000)
        before, rounds = asyncio.run(measure_futures(peers, options.rounds))
        waiting = tuple((each.waiting.resident - before.resident) / peers for each in rounds)
        section.figures.append(
            Figure(f"peer: run_in_executor, each of {peers:,} waiting calls", "bytes", waiting)
        )
    return section


def figures(count: int, before: Reading, rounds: list[Round]) -> list[Figure]:
    """The figures of `count` tokens, from the readings of each round."""
    starts = [before, *(each.dropped for each in rounds)]
    steps = list(itertools.pairwise(starts))
    grown = [each.waiting.resident - before.resident for each in rounds]
    left = [each.dropped.resident - before.resident for each in rounds]
    return [
        Figure(
            f"each of {count:,} waiting tokens",
            "bytes",
            tuple(growth / count for growth in grown),
            Target("at most", 400),
            note="its argument tuple included",
        ),
        Figure(
            "each of them ended, its caller still holding it",
            "bytes",
            tuple((each.ended.resident - before.resident) / count for each in rounds),
        ),
        Figure(
            "given back to the system when they end",
            "of the growth",
            tuple(1 - rest / growth for rest, growth in zip(left, grown, strict=True)),
            Target("at least", 0.98),
        ),
        Figure(
            "kept of each ended token, resident",
            "bytes",
            tuple((after.resident - start.resident) / count for start, after in steps[1:]),
            Target("at most", 1),
            note="round after round, but the first",
        ),
        Figure(
            "kept of each ended token, allocator",
            "blocks",
            tuple((after.blocks - start.blocks) / count for start, after in steps),
            Target("at most", 0.001),
        ),
        Figure(
            "kept of each ended token, garbage collector",
            "objects",
            tuple((after.objects - start.objects) / count for start, after in steps),
            Target("at most", 0.001),
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main({"memory": run}))
