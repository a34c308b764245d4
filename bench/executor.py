"""What asyncio's own calls and a thread pool's cost with TokenGate beneath, and without.

`install()` against the loop's default executor, and `Executor` against `ThreadPoolExecutor`, both
of the same number of threads.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack

import _gate
from _cli import main
from _contestants import noop
from _figures import Figure, Line, Section, Target, ratios
from _harness import Options, interleave
from _loops import open_loops

FULL = 20_000
QUICK = 5_000
WARM_UP = 256
THREADS = 8
WITH, WITHOUT = "with install()", "without"
OURS, THEIRS = "Executor", "ThreadPoolExecutor"

TARGETS = {
    "asyncio.to_thread": Target("at least", 2.5, aim=4.0),
    "run_in_executor(None)": Target("at least", 5.0, aim=8.0),
}

EXPLANATION = f"""\
Microseconds a no-op call. On a loop: a burst of asyncio.to_thread(noop, i) or of
loop.run_in_executor(None, noop, i), gathered, with tokengate.install() and without; without it the
loop has the default executor asyncio gives it. Off a loop: an executor of {THREADS} threads by
itself, one submit(noop, i).result() at a time; a burst of submits, then all results; a map."""


async def burst(how: str, count: int) -> list[int]:
    """`count` calls, gathered."""
    if how == "asyncio.to_thread":
        return await asyncio.gather(*[asyncio.to_thread(noop, i) for i in range(count)])
    run = asyncio.get_running_loop().run_in_executor
    return await asyncio.gather(*[run(None, noop, i) for i in range(count)])


async def timed(how: str, count: int, installed: bool) -> float:
    """Microseconds a call of one burst, after an unrecorded one that starts the threads."""
    import tokengate

    with ExitStack() as stack:
        if installed:
            stack.enter_context(tokengate.install())
        await burst(how, WARM_UP)
        start = time.perf_counter()
        results = await burst(how, count)
        elapsed = time.perf_counter() - start
    check(results, count)
    return elapsed / count * 1e6


def one_at_a_time(executor: Executor, count: int) -> list[int]:
    """Each call is made when the one before has come back."""
    return [executor.submit(noop, i).result() for i in range(count)]


def submitted(executor: Executor, count: int) -> list[int]:
    """All calls are made, then asked for."""
    futures = [executor.submit(noop, i) for i in range(count)]
    return [future.result() for future in futures]


def mapped(executor: Executor, count: int) -> list[int]:
    """By `Executor.map`."""
    return list(executor.map(noop, range(count)))


def trial(executor: Executor, work: Callable[[Executor, int], list[int]], count: int) -> float:
    """Microseconds a call of one round."""
    work(executor, WARM_UP)
    start = time.perf_counter()
    results = work(executor, count)
    elapsed = time.perf_counter() - start
    check(results, count)
    return elapsed / count * 1e6


def check(results: list[int], count: int) -> None:
    """Raises AssertionError for results that are not the calls' own."""
    if results != list(range(count)):
        raise AssertionError("calls came back with other results than their own")


def run(options: Options) -> Section:
    """Measure on every loop kind there is, and off the loop."""
    gate = _gate.load()
    section = Section("executor", EXPLANATION)
    count = options.pick(FULL, QUICK)
    works = {"one at a time": one_at_a_time, "burst": submitted, "map": mapped}
    trials: dict[str, Callable[[], float]] = {}
    with open_loops(section.skipped) as runners, ExitStack() as stack:
        for kind, runner in runners.items():
            for how in TARGETS:
                for installed in (True, False):
                    name = f"{kind}: {how} {WITH if installed else WITHOUT}"
                    trials[name] = functools.partial(on_loop, runner, how, count, installed)
        executors: dict[str, Executor] = {
            OURS: stack.enter_context(gate.Executor(THREADS)),
            THEIRS: stack.enter_context(ThreadPoolExecutor(THREADS)),
        }
        for what, work in works.items():
            for name, executor in executors.items():
                trials[f"{what}: {name}"] = functools.partial(trial, executor, work, count)
        samples = interleave(trials, options)

    for kind in runners:
        lines = section.lines[f"us a call on {kind}"] = []
        for how, target in TARGETS.items():
            mine, theirs = samples[f"{kind}: {how} {WITH}"], samples[f"{kind}: {how} {WITHOUT}"]
            lines += [Line(f"{how} {WITH}", count, mine), Line(f"{how} {WITHOUT}", count, theirs)]
            section.figures.append(
                Figure(f"{kind}: {how} with install()", "x faster", ratios(theirs, mine), target)
            )
    for what in works:
        mine, theirs = samples[f"{what}: {OURS}"], samples[f"{what}: {THEIRS}"]
        section.lines[f"us a call off a loop, {what}"] = [
            Line(OURS, count, mine),
            Line(THEIRS, count, theirs),
        ]
        section.figures.append(Figure(f"Executor, {what}", "x faster", ratios(theirs, mine)))
    return section


def on_loop(runner: asyncio.Runner, how: str, count: int, installed: bool) -> float:
    """One round on one loop."""
    return runner.run(timed(how, count, installed))


if __name__ == "__main__":
    raise SystemExit(main({"executor": run}))
