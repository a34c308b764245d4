"""Workers bound to CPUs against workers that go where the scheduler puts them, round by round."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import random
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from time import perf_counter

import _gate
from _cli import main
from _figures import Figure, Section, ratios
from _harness import Missing, Options, gil_enabled, interleave

MODES = ("free", "pinned", "one CPU")
CRUNCH = 20_000  # iterations of Python: about a millisecond
BLOCK = bytes(1 << 20)  # hashed without the GIL, about a millisecond
RESAMPLES = 2_000

EXPLANATION = """\
Two workers, of the thread lane and of plain processes in place of a process lane, once where the
scheduler puts them ("free"), once each bound to a core of its own ("pinned"), and, to see what
wrong binding costs, processes also both on one CPU. The caller is free throughout. The same
workers, warm, in a new random order each round; a ratio is pinned / free of one round, so below
1.00 pinning is faster. Whether it is, the 95 % confidence interval of the median tells."""


def crunch(turns: int = CRUNCH) -> int:
    """Pure Python."""
    total = 0
    for number in range(turns):
        total += number * number % 7
    return total


def digest() -> bytes:
    """C code without the GIL."""
    return hashlib.sha256(BLOCK).digest()


def nothing() -> None:
    """What a call costs by itself."""


WORK: dict[str, Callable[[], object]] = {"crunch": crunch, "digest": digest, "nothing": nothing}


# -- threads -----------------------------------------------------------------------------------


def thread_trials(stack: ExitStack, options: Options) -> dict[str, Callable[[], float]]:
    """Seconds of a burst, and of calls one at a time, by each kind of work and mode."""
    from tokengate import Coordinator

    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    counts = {
        "crunch": options.pick(400, 100),
        "digest": options.pick(400, 100),
        "nothing": options.pick(16_384, 4_096),
    }
    singles = options.pick(2_000, 500)
    trials: dict[str, Callable[[], float]] = {}
    for mode in ("free", "pinned"):
        coordinator = stack.enter_context(
            Coordinator(
                thread_workers=2,
                pin="core" if mode == "pinned" else "none",
                name=f"bench-{mode}",
            )
        )
        for name, function in WORK.items():
            call: Callable[[], Awaitable[object]] = _gate.guard(function, f"bench.{name}").options(
                coordinator=coordinator
            )

            def burst(
                call: Callable[[], Awaitable[object]] = call, count: int = counts[name]
            ) -> float:
                async def run() -> float:
                    begin = perf_counter()
                    await asyncio.gather(*[call() for _ in range(count)])
                    return perf_counter() - begin

                return loop.run_until_complete(run())

            trials[f"thread lane, {counts[name]} x {name}|{mode}"] = burst

        def single(call: Callable[[], Awaitable[object]] = call) -> float:  # of `nothing`, the last
            async def run() -> float:
                begin = perf_counter()
                for _ in range(singles):
                    await call()
                return perf_counter() - begin

            return loop.run_until_complete(run())

        trials[f"thread lane, {singles} calls one at a time|{mode}"] = single
    return trials


# -- processes ---------------------------------------------------------------------------------


def serve(pipe: Connection) -> None:
    """A worker process: binds itself as told, runs as told, answers when it is done."""
    while (order := pipe.recv()) is not None:
        work, count, cpus = order
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
            count = len(os.sched_getaffinity(0) ^ set(cpus))  # 0: read back as asked for
        else:
            for _ in range(count):
                WORK[work]()
        pipe.send(count)


def process_trials(
    stack: ExitStack, options: Options, cpus: Sequence[int]
) -> dict[str, Callable[[], float]]:
    """Seconds that two processes take for halves of a burst, and of orders one at a time."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        process.start()
        stack.callback(process.join)
        stack.callback(ours.send, None)
        pipes.append(ours)
    places = {
        "free": (set(os.sched_getaffinity(0)),) * 2,
        "pinned": ({cpus[0]}, {cpus[1]}),
        "one CPU": ({cpus[0]},) * 2,
    }
    counts = {"crunch": options.pick(200, 50), "digest": options.pick(200, 50)}
    singles = options.pick(2_000, 500)

    def bind(mode: str) -> None:
        for pipe, place in zip(pipes, places[mode], strict=True):
            pipe.send(("", 0, place))
        for pipe in pipes:
            if pipe.recv():
                raise RuntimeError(f"a process could not be bound for {mode!r}")

    trials: dict[str, Callable[[], float]] = {}
    for mode in MODES:
        for name, count in counts.items():

            def both(mode: str = mode, name: str = name, count: int = count) -> float:
                bind(mode)
                begin = perf_counter()
                for pipe in pipes:
                    pipe.send((name, count, None))
                for pipe in pipes:
                    pipe.recv()
                return perf_counter() - begin

            trials[f"two processes, {count} x {name} each|{mode}"] = both

        def turns(mode: str = mode) -> float:
            bind(mode)
            begin = perf_counter()
            for number in range(singles):
                pipe = pipes[number % 2]
                pipe.send(("nothing", 1, None))
                pipe.recv()
            return perf_counter() - begin

        trials[f"two processes in turn, {singles} round trips|{mode}"] = turns
    return trials


# -- the section -------------------------------------------------------------------------------


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median, by resampling."""
    pick = random.Random(1).choices  # noqa: S311 - not a secret
    medians = sorted(statistics.median(pick(samples, k=len(samples))) for _ in range(RESAMPLES))
    return medians[RESAMPLES // 40], medians[-RESAMPLES // 40]


def run(options: Options) -> Section:
    """Measure pinned against free."""
    _gate.load()
    if sys.platform != "linux":
        raise Missing(f"threads and processes cannot be bound to CPUs on {sys.platform}")
    from tokengate.machine import spread_cpus

    cpus = spread_cpus()
    if len(cpus) < 2:
        raise Missing("two workers need two CPUs, there is one: nothing to choose")
    section = Section("pinning", EXPLANATION)
    section.remarks.append(f"{'with' if gil_enabled() else 'without'} the GIL, CPUs {cpus[:2]}")
    with ExitStack() as stack:
        trials = thread_trials(stack, options) | process_trials(stack, options, cpus)
        for trial in trials.values():
            trial()
        samples = interleave(trials, options)
    for name in dict.fromkeys(each.partition("|")[0] for each in trials):
        free = samples[f"{name}|free"]
        for mode in MODES[1:]:
            if f"{name}|{mode}" in samples:
                found = ratios(samples[f"{name}|{mode}"], free)
                low, high = interval(found)
                section.figures.append(
                    Figure(
                        f"{name}: {mode} / free",
                        "x the time",
                        found,
                        note=f"95 % interval {low:.3f} to {high:.3f}",
                    )
                )
    return section


if __name__ == "__main__":
    raise SystemExit(main({"pinning": run}))
