"""An event loop with work of its own: clients that share it, and callbacks that hold it."""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from _figures import Figure, Line, Section, Target, ratios
from _harness import Options, interleave
from _pools import GATE, POOL_SIZES, Call, Pool, gate, pools
from _work import burn, iterations_for, job

CLIENTS = 100
TOKEN_SLEEP = 0.020
OWN_WORK = 0.0015
WARM_UP = 0.5

SLEEPS = 640
SLEEP = 0.010
CALLBACK = 0.030
WIDEST = "ThreadPoolExecutor(32)"

CLIENTS_EXPLANATION = """\
100 clients of one loop, each over and over: a call that sleeps 20 ms, then 1.5 ms of Python on
the loop itself. The loop can serve some 660 such requests a second, and 14 sleeps at once keep it
busy: what a pool wakes threads for beyond that it takes from the loop. Microseconds a request,
counted after half a second, each run with a new loop and a new pool. The best pool is the one
with the lowest median."""

BUSY_EXPLANATION = """\
640 calls that sleep 10 ms each, made at once, on a loop whose own callbacks take 30 ms of Python
each, one after the other: microseconds from the first call to the last result. The loop's lag is
of its own making here, and fewer workers would not help it."""


async def serve(pool: Pool, seconds: float) -> float:
    """Seconds a request, on the mean, of 100 clients that share the running loop and `pool`."""
    own = iterations_for(OWN_WORK)
    done = 0
    ended = False

    async def client(call: Call) -> None:
        nonlocal done
        while not ended:
            await call(TOKEN_SLEEP, 0)
            burn(own)
            done += 1

    async with pool.open() as opened:
        call = opened.bind(job, "bench.job")
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client(call))
            await asyncio.sleep(WARM_UP)
            before, start = done, time.perf_counter()
            await asyncio.sleep(seconds)
            served, took = done - before, time.perf_counter() - start
            ended = True
    return took / served


@asynccontextmanager
async def busy_loop() -> AsyncIterator[None]:
    """The running loop spends all its time in callbacks of 30 ms, one each turn."""
    loop = asyncio.get_running_loop()
    own = iterations_for(CALLBACK)
    handle: asyncio.Handle | None = None

    def work() -> None:
        nonlocal handle
        burn(own)
        handle = loop.call_soon(work)

    handle = loop.call_soon(work)
    try:
        yield
    finally:
        handle.cancel()


async def sleep_beside(pool: Pool) -> float:
    """Seconds of all the sleeps on `pool`, beside a busy loop. AssertionError if wrong results."""
    async with pool.open() as opened:
        call = opened.bind(job, "bench.job")
        await call(0, 0)
        async with busy_loop():
            start = time.perf_counter()
            results = await asyncio.gather(*[call(SLEEP, 0) for _ in range(SLEEPS)])
            took = time.perf_counter() - start
    if results != [0] * SLEEPS:
        raise AssertionError(f"{pool.name} came back with wrong results")
    return took


def raced(
    contestants: Sequence[Pool], run: Callable[[Pool], Awaitable[float]], options: Options
) -> dict[str, tuple[float, ...]]:
    """What `run` gave for each pool in each round, every time on a new loop of asyncio's own."""

    async def one(pool: Pool) -> float:
        return await run(pool)

    def trial(pool: Pool) -> float:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(one(pool))

    return interleave({pool.name: functools.partial(trial, pool) for pool in contestants}, options)


def lowest(samples: dict[str, tuple[float, ...]]) -> str:
    """The best pool but TokenGate, where less is better."""
    return min(samples.keys() - {GATE}, key=lambda name: statistics.median(samples[name]))


def run(options: Options) -> Section:
    """Measure the row of the 100 clients."""
    section = Section("clients", CLIENTS_EXPLANATION)
    sizes = (8, 32) if options.quick else POOL_SIZES
    seconds = options.pick(3, 1)
    samples = raced(
        [gate(), *pools(*sizes, default=not options.quick)],
        lambda pool: serve(pool, seconds),
        options,
    )
    section.lines["us a request"] = [
        Line(name, CLIENTS, tuple(each * 1e6 for each in values))
        for name, values in samples.items()
    ]
    best = lowest(samples)
    section.figures += [
        Figure(
            "requests a second of 100 clients, against the best pool",
            "x the throughput",
            ratios(samples[best], samples[GATE]),
            Target("at least", 0.95),
            note=f"best is {best}",
        ),
        Figure("TokenGate", "requests/s", tuple(1 / each for each in samples[GATE])),
        Figure(best, "requests/s", tuple(1 / each for each in samples[best])),
    ]
    return section


def run_beside_busy_loop(options: Options) -> Section:
    """Measure the row of the loop that is busy with its own callbacks."""
    section = Section("busy-loop", BUSY_EXPLANATION)
    samples = raced([gate(), *pools(8, 32)], sleep_beside, options)
    section.lines["us for all"] = [
        Line(name, SLEEPS, tuple(each * 1e6 for each in values)) for name, values in samples.items()
    ]
    section.figures.append(
        Figure(
            f"time of 640 sleeps beside callbacks of 30 ms, against {WIDEST}",
            "x the time",
            ratios(samples[GATE], samples[WIDEST]),
            Target("at most", 1.3),
        )
    )
    return section
