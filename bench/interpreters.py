"""The interpreter lane next to the standard library's interpreter pool, in one run."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from concurrent.futures import Executor
from multiprocessing.connection import Connection

import _lane_work as work
import tokengate
import wave_ratio
from _bare_processes import WORKERS, bare_processes
from _child import run_alone
from _cli import Run, main
from _figures import Section, Target, against, beside
from _harness import Missing, Options, interleave
from _work import burn
from lanes import (
    Echo,
    blocks_of_lane,
    blocks_of_pool,
    burst_of_lane,
    burst_of_pool,
    one_of_lane,
    one_of_pool,
    pure_python,
)
from tokengate.lanes.availability import check_interpreter

OURS = "interpreter lane"
PEER = "InterpreterPoolExecutor"

EXPLANATION = """\
Two workers each. burst: no-ops awaited together on an event loop. one at a time: the median of
single no-ops. 1.5 ms of Python: the same calls, spread over two workers, against a plain loop, and
against two processes without any library that share them out by halves. 10 MB: bytes of that size
as argument and as result, several calls in flight."""


def run(options: Options) -> Section:
    """All figures of the interpreter lane."""
    require()
    inside = importlib.import_module("_interpreter_work")
    noop, echo, burning = (
        getattr(inside, f"interpreter_{name}") for name in ("noop", "echo", "burn")
    )
    found = Section("the interpreter lane", EXPLANATION)
    figure = found.figures.append
    with rig(burning, echo) as (pool, pipes):
        many, few = options.pick(65_536, 8_192), options.pick(4_096, 1_024)
        bursts = interleave(
            {OURS: lambda: burst_of_lane(many, noop), PEER: lambda: burst_of_pool(pool, few)},
            options,
        )
        beside(figure, "burst", "us each", bursts)
        against(figure, "burst", bursts[PEER], bursts[OURS], Target("at least", 20.0), PEER)

        singles = interleave(
            {
                OURS: lambda: one_of_lane(options.pick(2_000, 500), noop),
                PEER: lambda: one_of_pool(pool, options.pick(1_000, 300)),
            },
            options,
        )
        beside(figure, "one at a time", "us", singles)
        target = Target("at least", 1.0)
        against(figure, "one at a time", singles[PEER], singles[OURS], target, PEER)

        pure_python(figure, options, OURS, PEER, burning, pool, pipes)

        large = interleave(
            {OURS: lambda: blocks_of_lane(echo), PEER: lambda: blocks_of_pool(pool)}, options
        )
        beside(figure, "10 MB there and back", "ms", large)
        against(figure, "10 MB", large[PEER], large[OURS], Target("at least", 1.0), PEER)
    return found


@contextlib.contextmanager
def rig(
    burning: tokengate.GuardedFunction[[int], object], echo: Echo
) -> Iterator[tuple[Executor, list[Connection]]]:
    """A coordinator, a pool and bare processes, as many workers each, all warm."""
    peer = importlib.import_module("concurrent.futures").InterpreterPoolExecutor
    with (
        bare_processes(work.bare_worker) as pipes,
        tokengate.Coordinator(interpreter_workers=WORKERS) as coordinator,
        tokengate.use(coordinator),
        peer(WORKERS) as pool,
    ):
        list(pool.map(burn, [100_000] * 64))
        list(burning.map([100_000] * 64))
        blocks_of_pool(pool), blocks_of_lane(echo)
        yield pool, pipes


def wave(options: Options) -> Section:
    """The whole wave run."""
    require()
    return wave_ratio.run(options, "interpreter")


def require() -> None:
    """Missing, saying why, where there is no such lane."""
    available, why = check_interpreter()
    if not available:
        raise Missing(f"the interpreter lane does not run here: {why}")


SECTIONS: dict[str, Run] = {
    "interpreters": run,
    "wave-interpreter": wave,
    # Alone: a heap others have stretched would blur it.
    "interpreter_memory": functools.partial(run_alone, "interpreter_memory.py"),
}

if __name__ == "__main__":
    raise SystemExit(main(SECTIONS))
