"""Throughput and loop lag under TokenGate's own limit, against thread pools of fixed sizes.

The four workloads of the gate are here; the other sections are in modules of their own.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import _clients
import _native_work
import _two_threads
from _cli import Run, main
from _figures import Figure, Line, Section, Target, ratios
from _harness import Options, interleave
from _lag import Beats, Lag
from _loops import FACTORIES
from _pools import GATE, POOL_SIZES, Pool, gate, pools
from _work import WORKLOADS, Workload, burn, job

TOTAL_TARGET = Target("at most", 1.10, aim=1.05)
LAG_TARGET = Target("at most", 30, aim=20)

EXPLANATION = """\
All calls of a workload at once, gathered: a pass. Passes follow each other until a heartbeat task
of the same loop, which sleeps 1 ms at a time, has had 1,000 beats; the pools, whose lag is not
judged, may stop after a few seconds. Each run starts with a new loop and a new pool without
threads, TokenGate with default settings. Total: the mean time of a pass, starting threads and
finding the limit included. Lag: by how much a beat came late. Python is counted in iterations,
calibrated once with nothing else running.
The best pool is the one with the lowest median total in that row (--quick: of the likely ones)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run ends with the first pass after so many beats or so many seconds."""

    beats: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PoolRun:
    """One run of one pool: the seconds each pass took, the loop's lag, the limit at the end."""

    passes: tuple[float, ...]
    lag: Lag
    limit: int

    @property
    def total(self) -> float:
        """Mean seconds of a pass."""
        return statistics.fmean(self.passes)


async def run_passes(pool: Pool, workload: Workload, plan: Plan) -> PoolRun:
    """Pass after pass of `workload` on `pool`. AssertionError if a call's result is wrong."""
    arguments = workload.arguments()
    expected = burn(arguments[1])
    took: list[float] = []
    async with pool.open() as opened:
        call = opened.bind(job, "bench.job")
        beats = Beats()
        await beats.start()
        begin = time.perf_counter()
        while True:
            start = time.perf_counter()
            results = await asyncio.gather(*[call(*arguments) for _ in range(workload.count)])
            now = time.perf_counter()
            took.append(now - start)
            if results != [expected] * workload.count:
                raise AssertionError(f"{pool.name} came back with wrong results")
            if beats.count >= plan.beats or now - begin >= plan.seconds:
                return PoolRun(tuple(took), beats.stop(), opened.limit())


def peers(workload: Workload, options: Options) -> list[Pool]:
    """The pools to race; under --quick only those of them that can win the row."""
    if options.quick:
        return pools(*((8, 32) if workload.sleep else (1,)))
    return pools(*POOL_SIZES, default=True)


def run_on(kind: str, name: str, options: Options) -> Section:
    """Measure all four workloads on loops of one kind. `Missing` if it is not installed."""
    factory = FACTORIES[kind]()
    section = Section(name, EXPLANATION)
    plans = {
        True: Plan(options.pick(1_000, 100), options.pick(60, 1)),
        False: Plan(options.pick(1_000, 100), options.pick(3, 0)),
    }
    for workload in WORKLOADS:
        runs: dict[str, list[PoolRun]] = {}

        def trial(pool: Pool, workload: Workload = workload) -> float:
            with asyncio.Runner(loop_factory=factory) as runner:
                one = runner.run(run_passes(pool, workload, plans[pool.name == GATE]))
            runs[pool.name].append(one)  # noqa: B023 - called within this turn
            return one.total

        trials: dict[str, Callable[[], float]] = {}
        for pool in [gate(), *peers(workload, options)]:
            runs[pool.name] = []
            trials[pool.name] = functools.partial(trial, pool)
        interleave(trials, options)
        report(section, workload, runs)
    return section


def report(section: Section, workload: Workload, runs: dict[str, list[PoolRun]]) -> None:
    """The tables and the figures of one row."""
    section.lines[f"us a pass of {workload.name}"] = [
        Line(name, workload.count, tuple(run.total * 1e6 for run in each))
        for name, each in runs.items()
    ]
    section.lines[f"us of lag, p99 of beats, {workload.name}"] = [
        Line(
            name,
            round(statistics.median(run.lag.beats for run in each)),
            tuple(run.lag.p99 * 1e6 for run in each),
        )
        for name, each in runs.items()
    ]
    mine = runs[GATE]
    totals = {name: [run.total for run in each] for name, each in runs.items()}
    best = min(totals.keys() - {GATE}, key=lambda name: statistics.median(totals[name]))
    what = workload.name
    section.figures += [
        Figure(
            f"total of {what}, against the best pool",
            "x the time",
            ratios(totals[GATE], totals[best]),
            TOTAL_TARGET,
            note=f"best is {best}",
        ),
        Figure(
            f"lag during {what}, p99 of beats",
            "ms",
            tuple(run.lag.p99 * 1e3 for run in mine),
            LAG_TARGET,
            note=f"{min(run.lag.beats for run in mine):,} beats or more",
        ),
        Figure(
            "its first pass alone, against that pool's",
            "x the time",
            ratios([run.passes[0] for run in mine], [run.passes[0] for run in runs[best]]),
        ),
        Figure(
            "its lag, p99 of all moments", "ms", tuple(run.lag.p99_anywhen * 1e3 for run in mine)
        ),
        Figure("its longest lag", "ms", tuple(run.lag.longest * 1e3 for run in mine)),
        Figure("its limit at the end", "workers", tuple(run.limit for run in mine)),
    ]


SECTIONS: dict[str, Run] = {
    "workloads": functools.partial(run_on, "asyncio", "workloads"),
    "workloads-uvloop": functools.partial(run_on, "uvloop", "workloads-uvloop"),
    "clients": _clients.run,
    "busy-loop": _clients.run_beside_busy_loop,
    "native-work": _native_work.run,
    "two-threads": _two_threads.run,
}

if __name__ == "__main__":
    raise SystemExit(main(SECTIONS))
