"""A burst of no-op calls, gathered and mapped, against the floor and the peers, on each loop."""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

import _gate
from _cli import main
from _contestants import Call, Contestant, noop, open_contestants
from _figures import Figure, Line, Section, Target, ratios
from _harness import Options, interleave
from _loops import open_loops

Burst = Callable[[int], Coroutine[Any, Any, object]]

WARM_UP = 256
FLOOR = "floor"
MAP = "TokenGate .map"
GATHER = "TokenGate"
OURS = (FLOOR, GATHER, MAP)

FLOOR_TARGET = Target("at most", 1.3)
GATHER_TARGETS = {
    "asyncio": Target("at least", 10.0, aim=15.0),
    "uvloop": Target("at least", 8.0, aim=15.0),
}
MAP_TARGET = Target("at least", 30.0, aim=40.0)

EXPLANATION = """\
Microseconds a call, from the first call made to the last result in hand, everything made on the
way freed. floor: asyncio.gather over as many pending futures of loop.create_future(), resolved
together by one call_soon callback: what gather costs with no thread anywhere. TokenGate:
asyncio.gather over noop(i); .map: await noop.map(range(n)). The peers are gathered the same way,
in bursts of the count printed beside them: a longer burst makes none of them cheaper a call.
A ratio is the median of the rounds' own ratios; the best run_in_executor is the pool size with
the lowest median on that loop."""


async def floor(count: int) -> object:
    """`asyncio.gather` over `count` pending futures that one callback resolves."""
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(count)]

    def resolve_all() -> None:
        for future in futures:
            future.set_result(None)

    loop.call_soon(resolve_all)
    return await asyncio.gather(*futures)


async def gathered(call: Call, count: int) -> object:
    """`asyncio.gather` over `count` calls."""
    return await asyncio.gather(*[call(i) for i in range(count)])


async def timed(burst: Burst, count: int, check: bool) -> float:
    """Microseconds a call of one burst, after a small unrecorded one that starts the threads.

    The check of the results, where there are any, comes after the clock has stopped.
    """
    await burst(min(WARM_UP, count))
    start = time.perf_counter()
    results = await burst(count)
    elapsed = time.perf_counter() - start
    if check and results != list(range(count)):
        raise AssertionError("a burst came back with other results than its calls' own")
    return elapsed / count * 1e6


def run(options: Options) -> Section:
    """Measure the burst rows of the table on every loop kind there is."""
    section = Section("burst", EXPLANATION)
    with (
        open_contestants(section.skipped) as contestants,
        open_loops(section.skipped) as runners,
    ):
        counts: dict[str, int] = {}
        trials: dict[str, Callable[[], float]] = {}
        for kind, runner in runners.items():
            for name, burst in bursts(contestants, runner.get_loop()).items():
                counts[name] = options.burst if name in OURS else options.peer_burst
                trials[f"{kind}: {name}"] = functools.partial(
                    trial, runner, burst, counts[name], check=name != FLOOR
                )
        samples = interleave(trials, options)

    for kind in runners:
        mine = {name: samples[f"{kind}: {name}"] for name in counts}
        section.lines[f"us a call on {kind}"] = [
            Line(name, counts[name], values) for name, values in mine.items()
        ]
        section.figures += figures(kind, mine, contestants)
    return section


def trial(runner: asyncio.Runner, burst: Burst, count: int, check: bool) -> float:
    """One round of one contestant on one loop."""
    return runner.run(timed(burst, count, check))


def bursts(contestants: list[Contestant], loop: asyncio.AbstractEventLoop) -> dict[str, Burst]:
    """Every burst to time on `loop`, by name."""
    named: dict[str, Burst] = {FLOOR: floor}
    for each in contestants:
        named[each.name] = functools.partial(gathered, each.bind(loop))
    if GATHER in named:
        named[MAP] = mapped()
    return named


def mapped() -> Burst:
    """`await noop.map(range(count))`. Raises `Missing` without TokenGate."""
    guarded = _gate.guard(noop, "bench.noop")

    async def burst(count: int) -> object:
        return await guarded.map(range(count))

    return burst


def figures(
    kind: str, samples: dict[str, tuple[float, ...]], contestants: list[Contestant]
) -> list[Figure]:
    """The ratios of one loop kind, from microseconds a call and round of each contestant."""
    if GATHER not in samples:
        return []
    executors = [each.name for each in contestants if each.family == "executor"]
    best = min(executors, key=lambda name: statistics.median(samples[name]))
    gather_target = GATHER_TARGETS[kind]
    return [
        Figure(
            f"{kind}: gather against the floor",
            "x the cost",
            ratios(samples[GATHER], samples[FLOOR]),
            FLOOR_TARGET,
        ),
        Figure(
            f"{kind}: gather against the best run_in_executor",
            "x faster",
            ratios(samples[best], samples[GATHER]),
            gather_target,
            note=f"best is {best}",
        ),
        Figure(
            f"{kind}: .map against the best run_in_executor",
            "x faster",
            ratios(samples[best], samples[MAP]),
            MAP_TARGET,
            note=f"best is {best}",
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main({"burst": run}))
