"""What a million waiting tokens hold, what is given back when they end, and what is kept."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
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
ARENA = 1 << 20
"""Bytes that Python's allocator takes from the system, and gives back, at one go."""

EXPLANATION = """\
All tokens wait: the workers sit in the function until it is let go. The arguments, one int each,
and the caller's list that holds the tokens exist before the first reading, so neither is
counted. Bytes are resident memory of the whole process against the reading before round 1 (so
whatever a round leaves behind counts against the next), in a process of its own whose heap
nothing else has stretched. Given back: how much of the growth is gone after the tokens have
ended, been dropped by the caller, and one garbage collection. Kept: what a round that ends as it
began has added, a token."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of calls: resident bytes while they wait, ended, and dropped; and what is left.

    Made after all rounds. A reading that became an object at the time would be the one survivor
    among a million tokens' neighbours, and keep a whole arena of the allocator from being freed.
    """

    waiting: int
    ended: int
    """Ended, but still in the caller's list with their results."""
    dropped: int
    blocks: int
    """Memory blocks that Python's allocator has given out, once they are dropped."""
    objects: int
    """Objects that the garbage collector tracks, once they are dropped."""


FIELDS = len(fields(Round))


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


async def measure(subject: Subject, gate: Gate, count: int, rounds: int) -> list[Round]:
    """A short warm-up, whose end is where all began, and each round of `count` calls at once.

    Raises AssertionError if a call ended before it was let go, or with a wrong result.
    """
    values = list(range(count))
    handles: list[Any] = [None] * count
    log = array("q", bytes(8 * FIELDS * (rounds + 1)))
    await cycle(subject, gate, handles, values[:WARM_UP], log, 0)
    read_left(log, 0)
    for number in range(1, rounds + 1):
        progress(f"round {number}/{rounds}: {count:,} waiting calls")
        await cycle(subject, gate, handles, values, log, number * FIELDS)
    progress("")
    return [Round(*log[at : at + FIELDS]) for at in range(0, len(log), FIELDS)]


async def cycle(
    subject: Subject, gate: Gate, handles: list[Any], values: list[int], log: array[int], at: int
) -> None:
    """Make a call for each of `values`, let them run, drop them; a `Round` from `at` in `log`."""
    gate.open.clear()
    for index, value in enumerate(values):
        handles[index] = subject.call(value)
    gc.collect()
    log[at] = resident_bytes()
    # islice: a slice would be a list of a million of its own, in memory that stays stretched.
    early = sum(map(subject.early, itertools.islice(handles, len(values))))
    gate.open.set()
    await subject.finish(itertools.islice(handles, len(values)))
    gc.collect()
    log[at + 1] = resident_bytes()
    calls = itertools.islice(handles, len(values))
    wrong = sum(subject.result(handle) != i for i, handle in enumerate(calls))
    if early or wrong:
        raise AssertionError(f"{early} calls ended too early, {wrong} with a wrong result")
    for index in range(len(values)):
        handles[index] = None
    read_left(log, at)


def read_left(log: array[int], at: int) -> None:
    """What is left once the calls are dropped, into the last fields of the `Round` at `at`."""
    gc.collect()
    log[at + 2] = resident_bytes()
    log[at + 3] = sys.getallocatedblocks()
    log[at + 4] = len(gc.get_objects())


async def measure_tokens(count: int, rounds: int) -> list[Round]:
    """`measure` of TokenGate. Raises `Missing` without it."""
    _gate.load()
    from tokengate import Coordinator

    gate = Gate()
    async with Coordinator(thread_workers=WORKERS, name="bench-memory") as coordinator:
        return await measure(Tokens(coordinator, gate), gate, count, rounds)


async def measure_futures(count: int, rounds: int) -> list[Round]:
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
            rounds = asyncio.run(measure_tokens(count, options.rounds))
        except Missing as missing:
            section.skipped.append(str(missing))
        else:
            section.figures += figures(count, rounds)
        # Last, in a heap already stretched, which if anything makes the peer look smaller.
        peers = options.pick(200_000, 50_000)
        start, *rounds = asyncio.run(measure_futures(peers, options.rounds))
        waiting = tuple((each.waiting - start.dropped) / peers for each in rounds)
        section.figures.append(
            Figure(f"peer: run_in_executor, each of {peers:,} waiting calls", "bytes", waiting)
        )
    return section


def figures(count: int, taken: list[Round]) -> list[Figure]:
    """The figures of `count` tokens, from the readings of each round."""
    start, *rounds = taken
    steps = list(itertools.pairwise(taken))
    grown = [each.waiting - start.dropped for each in rounds]
    left = [each.dropped - start.dropped for each in rounds]
    found = [
        Figure(
            f"each of {count:,} waiting tokens",
            "bytes",
            tuple(growth / count for growth in grown),
            Target("at most", 400),
        ),
        Figure(
            "each of them ended, its caller still holding it",
            "bytes",
            tuple((each.ended - start.dropped) / count for each in rounds),
        ),
        Figure(
            "given back to the system when they end",
            "of the growth",
            tuple(1 - rest / growth for rest, growth in zip(left, grown, strict=True)),
            Target("at least", 0.98),
        ),
        Figure(
            "kept of each ended token, allocator",
            "blocks",
            tuple((b.blocks - a.blocks) / count for a, b in steps),
            Target("at most", 0.001),
        ),
        Figure(
            "kept of each ended token, garbage collector",
            "objects",
            tuple((b.objects - a.objects) / count for a, b in steps),
            Target("at most", 0.001),
        ),
    ]
    if len(rounds) > 1:
        ended = count * (len(rounds) - 1)
        found.append(
            Figure(
                "kept of each ended token, resident",
                "bytes",
                ((rounds[-1].dropped - rounds[0].dropped) / ended,),
                # One arena more or less is chance; where few tokens ended it is above a byte each.
                Target("at most", max(1, 1.1 * ARENA / ended)),
                note="from the first round's end to the last's",
            )
        )
    return found


if __name__ == "__main__":
    raise SystemExit(main({"memory": run}))
