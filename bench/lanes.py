"""The process lane next to the standard library's process pool, in one run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.connection import Connection
from statistics import median

import _auto
import _claiming
import _lane_work as work
import tokengate
import wave_ratio
from _bare_processes import BARE, WORKERS, at_once, bare_processes
from _cli import Run, main
from _figures import Figure, Section, Target, against, beside
from _harness import Options, interleave
from _work import burn

OURS = "process lane"
PEER = "ProcessPoolExecutor (forkserver)"
LOOP = "the plain loop"
BLOCK = bytes(10_000_000)
Noop = tokengate.GuardedFunction[[], None]
Echo = tokengate.GuardedFunction[[bytes], bytes]

EXPLANATION = """\
Two workers each. burst: no-ops awaited together on an event loop. one at a time: the median of
single no-ops. 1.5 ms of Python: the same calls, spread over two workers, against a plain loop, and
against two processes without any library that share them out by halves. 10 MB: bytes of that size
as argument and as result, several calls in flight. kill: from kill() of an executing token until
its awaiter goes on, and until a worker in place of the killed one has answered a call."""


def run(options: Options) -> Section:
    """All figures of the process lane."""
    found = Section("the process lane", EXPLANATION)
    with rig() as (coordinator, pool, pipes):
        figure = found.figures.append
        many, few = options.pick(65_536, 8_192), options.pick(4_096, 1_024)
        bursts = interleave(
            {OURS: lambda: burst_of_lane(many), PEER: lambda: burst_of_pool(pool, few)}, options
        )
        beside(figure, "burst", "us each", bursts)
        against(figure, "burst", bursts[PEER], bursts[OURS], Target("at least", 20.0), PEER)

        singles = interleave(
            {
                OURS: lambda: one_of_lane(options.pick(2_000, 500)),
                PEER: lambda: one_of_pool(pool, options.pick(1_000, 300)),
            },
            options,
        )
        beside(figure, "one at a time", "us", singles)
        against(
            figure, "one at a time", singles[PEER], singles[OURS], Target("at least", 3.0), PEER
        )

        pure_python(figure, options, OURS, PEER, work.lane_burn, pool, pipes)

        large = interleave({OURS: blocks_of_lane, PEER: lambda: blocks_of_pool(pool)}, options)
        beside(figure, "10 MB there and back", "ms", large)
        against(figure, "10 MB", large[PEER], large[OURS], Target("at least", 5.0), PEER)

        kills = [asyncio.run(kill_once()) for _ in range(options.pick(20, 8))]
        told, ready = zip(*kills, strict=True)
        figure(Figure("kill: its awaiter is told", "ms", told, Target("at most", 5.0)))
        figure(Figure("kill: a new worker has answered", "ms", ready, Target("at most", 50.0)))
        del coordinator
    return found


def pure_python(
    add: Callable[[Figure], None],
    options: Options,
    ours: str,
    peer: str,
    burning: tokengate.GuardedFunction[[int], object],
    pool: Executor,
    pipes: list[Connection],
) -> None:
    """1.5 ms of Python: a lane, its peer's pool, bare processes and the plain loop."""
    turns, count = work.turns_for(0.0015), options.pick(1_000, 300)
    python = interleave(
        {
            ours: lambda: timed(lambda: list(burning.map([turns] * count))),
            peer: lambda: timed(lambda: list(pool.map(burn, [turns] * count))),
            BARE: lambda: at_once(pipes, *[(count // WORKERS, turns)] * WORKERS),
            LOOP: lambda: timed(lambda: [burn(turns) for _ in range(count)]),
        },
        options,
    )
    what = "1.5 ms of Python"
    beside(add, what, "s", python)
    against(add, what, python[LOOP], python[ours], None, LOOP)
    against(add, what, python[BARE], python[ours], Target("at least", 0.95), BARE)
    against(add, what, python[peer], python[ours], Target("at least", 1.0), peer)


@contextlib.contextmanager
def rig() -> Iterator[tuple[tokengate.Coordinator, ProcessPoolExecutor, list[Connection]]]:
    """A coordinator, a pool and bare processes, as many workers each, all warm."""
    context = multiprocessing.get_context("forkserver")
    with (
        bare_processes(work.bare_worker) as pipes,
        tokengate.Coordinator(process_workers=WORKERS) as coordinator,
        tokengate.use(coordinator),
        ProcessPoolExecutor(WORKERS, mp_context=context) as pool,
    ):
        list(pool.map(burn, [100_000] * 64))
        list(work.lane_burn.map([100_000] * 64))
        blocks_of_pool(pool), blocks_of_lane()
        yield coordinator, pool, pipes


def timed(body: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


def burst_of_lane(count: int, noop: Noop = work.lane_noop) -> float:
    """Microseconds each."""

    async def body() -> float:
        start = time.perf_counter()
        await asyncio.gather(*[noop() for _ in range(count)])
        return (time.perf_counter() - start) / count * 1e6

    return asyncio.run(body())


def burst_of_pool(pool: Executor, count: int) -> float:
    """The same."""

    async def body() -> float:
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        await asyncio.gather(*[loop.run_in_executor(pool, work.noop) for _ in range(count)])
        return (time.perf_counter() - start) / count * 1e6

    return asyncio.run(body())


def one_of_lane(count: int, noop: Noop = work.lane_noop) -> float:
    """Microseconds, the median of so many."""

    async def body() -> float:
        samples = []
        for _ in range(count):
            start = time.perf_counter()
            await noop()
            samples.append(time.perf_counter() - start)
        return median(samples) * 1e6

    return asyncio.run(body())


def one_of_pool(pool: Executor, count: int) -> float:
    """The same."""

    async def body() -> float:
        loop = asyncio.get_running_loop()
        samples = []
        for _ in range(count):
            start = time.perf_counter()
            await loop.run_in_executor(pool, work.noop)
            samples.append(time.perf_counter() - start)
        return median(samples) * 1e6

    return asyncio.run(body())


def blocks_of_lane(echo: Echo = work.lane_echo) -> float:
    """Milliseconds for one of several blocks there and back."""

    async def body() -> float:
        start = time.perf_counter()
        for block in await asyncio.gather(*[echo(BLOCK) for _ in range(8)]):
            if len(block) != len(BLOCK):
                raise AssertionError("bytes were lost")
        return (time.perf_counter() - start) / 8 * 1e3

    return asyncio.run(body())


def blocks_of_pool(pool: Executor) -> float:
    """The same."""

    async def body() -> float:
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        calls = [loop.run_in_executor(pool, work.echo, BLOCK) for _ in range(8)]
        for block in await asyncio.gather(*calls):
            if len(block) != len(BLOCK):
                raise AssertionError("bytes were lost")
        return (time.perf_counter() - start) / 8 * 1e3

    return asyncio.run(body())


async def kill_once() -> tuple[float, float]:
    """Milliseconds until the awaiter is told, and until both workers answer again."""
    token, other = work.lane_forever(), work.lane_forever()
    executing = tokengate.TokenState.EXECUTING
    while {token.state, other.state} != {executing}:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    start = time.perf_counter()
    token.kill("measured")
    with contextlib.suppress(tokengate.TokenKilled):
        await token
    told = time.perf_counter() - start
    await work.lane_noop()  # the other worker is taken, so a new one runs it
    ready = time.perf_counter() - start
    other.kill("measured")
    with contextlib.suppress(tokengate.TokenKilled):
        await other
    return told * 1e3, ready * 1e3


if __name__ == "__main__":
    wave = functools.partial(wave_ratio.run, lane="process")
    sections: dict[str, Run] = {
        "lanes": run,
        "wave-process": wave,
        "auto": _auto.run,
        "free-threaded": _claiming.run,
    }
    raise SystemExit(main(sections))
