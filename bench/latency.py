"""One no-op call at a time: from the call to its result, beside the machine's bare round trip."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

from _cli import main
from _contestants import Call, Contestant, open_contestants
from _figures import Figure, Line, Section, Target, ratios
from _harness import Missing, Options, interleave
from _loops import open_loops
from round_trip import Placements, compiled

GATE = "TokenGate"
BARE = "bare round trip"
WARM_UP = 100
CALLS = 1_000
ROUNDS = 5
"""Shorter trials and as many times the rounds: where the scheduler has put two threads tends to
last for a while, and decides a trial; so each contestant gets many goes at it."""
TARGET = Target("at most", 0.6)

EXPLANATION = """\
Microseconds of one `await call(i)` with nothing else going on: each call is made when the one
before has come back, so a worker must be woken, and the loop after it. The figure of a round is
the median of its calls. The bare round trip is the same way with no Python at all: one C thread
wakes another through a futex, and sleeps in epoll_wait() until that answers through an eventfd.
It is what this machine asks for the trip, and it depends on where the two threads sit: waking a
sleeping CPU, in a virtual machine above all, can cost ten times a trip within one CPU.
The best run_in_executor is the pool size with the lowest median on that loop."""


async def one_at_a_time(call: Call, count: int) -> float:
    """Median microseconds of `count` calls awaited one after the other."""
    for i in range(WARM_UP):
        await call(i)
    clock = time.perf_counter_ns
    took: list[int] = []
    for i in range(count):
        start = clock()
        result = await call(i)
        took.append(clock() - start)
        if result != i:
            raise AssertionError(f"call {i} came back with {result!r}")
    return statistics.median(took) / 1_000


def trial(runner: asyncio.Runner, call: Call, count: int) -> float:
    """One round of one contestant on one loop."""
    return runner.run(one_at_a_time(call, count))


def run(options: Options) -> Section:
    """Measure the latency row of the table on every loop kind there is."""
    section = Section("latency", EXPLANATION)
    options = dataclasses.replace(options, rounds=options.rounds * options.pick(ROUNDS, 1))
    count = CALLS
    with ExitStack() as stack:
        contestants = stack.enter_context(open_contestants(section.skipped))
        runners = stack.enter_context(open_loops(section.skipped))
        trials: dict[str, Callable[[], float]] = {}
        for kind, runner in runners.items():
            for each in contestants:
                trials[f"{kind}: {each.name}"] = functools.partial(
                    trial, runner, each.bind(runner.get_loop()), count
                )
        placements: list[Placements] = []
        try:
            machine = stack.enter_context(compiled())
        except Missing as missing:
            section.skipped.append(str(missing))
        else:

            def bare() -> float:
                placements.append(machine.measure(count))
                return placements[-1].unpinned

            trials[BARE] = bare
        samples = interleave(trials, options)

    for kind in runners:
        mine = {each.name: samples[f"{kind}: {each.name}"] for each in contestants}
        section.lines[f"us of one call on {kind}"] = [
            Line(name, count, values) for name, values in mine.items()
        ]
        section.figures += figures(kind, mine, contestants, samples.get(BARE))
    if placements:
        section.lines["us of the bare round trip, threads"] = bare_lines(count, placements)
    return section


def bare_lines(count: int, placements: list[Placements]) -> list[Line]:
    """The bare round trip, by where its threads sit."""
    lines = [
        Line("where the scheduler puts them", count, tuple(each.unpinned for each in placements)),
        Line("both on one CPU", count, tuple(each.together for each in placements)),
    ]
    apart = tuple(each.apart for each in placements if each.apart is not None)
    if apart:
        lines.append(Line("on two CPUs", count, apart))
    return lines


def figures(
    kind: str,
    samples: dict[str, tuple[float, ...]],
    contestants: list[Contestant],
    bare: tuple[float, ...] | None,
) -> list[Figure]:
    """The ratios of one loop kind, from the median latency of each contestant and round."""
    if GATE not in samples:
        return []
    executors = [each.name for each in contestants if each.family == "executor"]
    best = min(executors, key=lambda name: statistics.median(samples[name]))
    found = [
        Figure(
            f"{kind}: one call against the best run_in_executor",
            "x the time",
            ratios(samples[GATE], samples[best]),
            TARGET,
            note=f"best is {best}",
        )
    ]
    if bare:
        found.append(
            Figure(
                f"{kind}: one call against the bare round trip",
                "x the time",
                ratios(samples[GATE], bare),
                note="threads where the scheduler puts them",
            )
        )
    return found


if __name__ == "__main__":
    raise SystemExit(main({"latency": run}))
