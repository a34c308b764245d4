"""Functions that never return, and what is left of the lane for others."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from _figures import Figure, Line, Section, Target, ratios
from _harness import Options, interleave
from _policy import Crowd, guarded, new_coordinator
from _work import Workload, job

if TYPE_CHECKING:
    from tokengate import Token

STUCK = 200
TIMEOUT = 0.1
EVERY = 0.010
PATIENCE = 30
RETURNING = 5_000
OTHERS = (
    Workload("clients of 10 ms sleeps", 64, 0.010, 0),
    Workload("clients of 2 ms of Python", 8, 0, 0.002),
)

EXPLANATION = """\
Clients of another operation, each over and over, without and with functions that block for ever
and have timeout=0.1: one is called every 10 ms until 200 have begun, since one that has not begun
within its timeout never does. Microseconds a call of the clients, from the first stuck call on,
the time in which the lane gets over them included. The ledger is read when all these tokens have
ended; then the functions are let go, which a user's would not be."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: seconds a call of the clients, and the books of the stuck operation."""

    seconds: float
    begun: int = 0
    ledger: int = 0
    unstarted: int = 0
    left: int = 0


async def serve(workload: Workload, seconds: float, stuck: int) -> Outcome:
    """The clients' pace beside `stuck` functions, for so long and until all of those are stuck."""
    arguments = workload.arguments()
    crowd, released = Crowd(), threading.Event()
    done = 0
    ended = False

    def block() -> None:
        with crowd.member():
            released.wait()

    async with new_coordinator() as coordinator:
        others = guarded(coordinator, job, "bench.others")
        blocking = guarded(coordinator, block, "bench.stuck", timeout=TIMEOUT)

        async def client() -> None:
            nonlocal done
            while not ended:
                await others(*arguments)
                done += 1

        async def get_stuck() -> list[Token[Any]]:
            tokens: list[Token[Any]] = []
            give_up = time.perf_counter() + PATIENCE
            while crowd.entered < stuck and time.perf_counter() < give_up:
                tokens.append(blocking())
                await asyncio.sleep(EVERY)
            await asyncio.gather(*tokens, return_exceptions=True)
            return tokens

        def ledger() -> int:
            known = coordinator.stats().operations
            return known["bench.stuck"].abandoned_now if stuck else 0

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workload.count):
                    group.create_task(client())
                await asyncio.sleep(0.5)  # the lane finds its limit first
                before, start = done, time.perf_counter()
                tokens, _ = await asyncio.gather(get_stuck(), asyncio.sleep(seconds))
                pace = (time.perf_counter() - start) / (done - before)
                begun, abandoned = crowd.entered, ledger()
                ended = True
        finally:
            released.set()
        for _ in range(RETURNING):  # no token to await: they have all ended
            if not (left := ledger()):
                break
            await asyncio.sleep(0.001)
    return Outcome(pace, begun, abandoned, len(tokens) - begun, left)


def run(options: Options) -> Section:
    """Measure the row of the functions that block for ever."""
    section = Section("stuck", EXPLANATION)
    seconds = options.pick(4, 3)
    if options.quick:
        options = dataclasses.replace(options, rounds=1)
    seen: list[Outcome] = []

    def trial(workload: Workload, stuck: int) -> float:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            one = runner.run(serve(workload, seconds, stuck))
        if stuck:
            seen.append(one)
        return one.seconds * 1e6

    for workload in OTHERS:
        samples = interleave(
            {
                "without": functools.partial(trial, workload, 0),
                "beside stuck ones": functools.partial(trial, workload, STUCK),
            },
            options,
        )
        section.lines[f"us a call, {workload.count} {workload.name}"] = [
            Line(name, workload.count, values) for name, values in samples.items()
        ]
        section.figures.append(
            Figure(
                f"pace of {workload.count} {workload.name}, beside {STUCK} stuck functions",
                "x the throughput",
                ratios(samples["without"], samples["beside stuck ones"]),
                Target("at least", 0.9),
            )
        )
    section.figures += [
        Figure(
            "abandoned_now, least of all rounds",
            "functions",
            (min(each.ledger for each in seen),),
            Target("at least", STUCK),
        ),
        Figure(
            "abandoned_now off the functions truly stuck, most of all rounds",
            "functions",
            (max(abs(each.ledger - each.begun) for each in seen),),
            Target("at most", 0),
        ),
        Figure("expired before they began", "tokens", tuple(each.unstarted for each in seen)),
        Figure(
            "abandoned_now once they have returned, most of all rounds",
            "functions",
            (max(each.left for each in seen),),
            Target("at most", 0),
        ),
    ]
    return section
