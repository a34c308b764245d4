"""Pure Python without the GIL: TokenGate against two bare threads that share the calls out."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque

from _bare_threads import BARE, on_bare_threads
from _figures import Figure, Line, Section, Target, ratios
from _harness import Missing, Options, gil_enabled, interleave
from _pools import gate
from _work import WORKLOADS, Workload, burn, job

GATE = "TokenGate"

EXPLANATION = """\
Only without the GIL: the calls of each workload of pure Python, made at once and gathered, against
two bare threads that take them from a deque and put the results into a list; starting and joining
these is counted. Microseconds of five passes in a row, on a new loop and a new coordinator with
default settings."""
PASSES = 5


async def through_gate(workload: Workload) -> float:
    """Seconds of five passes of `workload` through TokenGate, starting its threads included."""
    arguments = workload.arguments()
    results: list[int] = []
    async with gate().open() as opened:
        call = opened.bind(job, "bench.job")
        start = time.perf_counter()
        for _ in range(PASSES):
            results += await asyncio.gather(*[call(*arguments) for _ in range(workload.count)])
        took = time.perf_counter() - start
    check(results, workload)
    return took


def on_threads(workload: Workload) -> float:
    """Seconds of the same on two threads."""
    arguments = workload.arguments()
    results: list[int] = []
    start = time.perf_counter()
    for _ in range(PASSES):
        left = deque([arguments] * workload.count)
        on_bare_threads(lambda each: results.append(job(*each)), left)
    took = time.perf_counter() - start
    check(results, workload)
    return took


def check(results: list[int], workload: Workload) -> None:
    """AssertionError unless every call has been made once, with the result it must have."""
    if results != [burn(workload.arguments()[1])] * (workload.count * PASSES):
        raise AssertionError(f"{workload.name} came back with wrong results")


def run(options: Options) -> Section:
    """Measure the free-threaded row. `Missing` on an interpreter with the GIL."""
    if gil_enabled():
        raise Missing("the figures against two bare threads: this interpreter has the GIL")
    section = Section("two-threads", EXPLANATION)

    def tokens(workload: Workload) -> float:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(through_gate(workload))

    for workload in WORKLOADS:
        if workload.sleep:
            continue
        samples = interleave(
            {
                GATE: functools.partial(tokens, workload),
                BARE: functools.partial(on_threads, workload),
            },
            options,
        )
        section.lines[f"us of five passes of {workload.name}"] = [
            Line(name, workload.count * PASSES, tuple(each * 1e6 for each in values))
            for name, values in samples.items()
        ]
        section.figures.append(
            Figure(
                f"pace of {workload.name}, against two bare threads",
                "x the throughput",
                ratios(samples[BARE], samples[GATE]),
                Target("at least", 0.95),
            )
        )
    return section
