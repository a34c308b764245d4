"""A million tokens against 65,536: what one costs, and how long `.map` holds the loop at a time."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import _gate
from _cli import main
from _contestants import noop
from _figures import Figure, Line, Section, Target, ratios
from _harness import Options, interleave
from _slices import SliceTimedLoop
from bursts import FLOOR, GATHER, MAP, WARM_UP, Burst, floor, gathered, mapped, trial

COST_TARGET = Target("at most", 2)
BLOCKED_TARGET = Target("at most", 20)
BEAT = 0.001

EXPLANATION = """\
Microseconds a token as in the bursts, on asyncio's loop, at both sizes; the floor at both sizes
tells how much of a rise is gather's and the garbage collector's own. Then `await noop.map(...)` of
the large size once more on a loop that times each callback it runs, with a heartbeat every ms.
CPU time of the longest callback is our own work at one go: submission, draining, and garbage
collections they set off, which the next line leaves out. Wall time adds
what that callback waited for the GIL, and the heartbeat's lateness all that came between two
turns; workers running Python cause both."""


@dataclass(slots=True)
class Blocked:
    """How long the loop was held during each round's `.map`, in milliseconds."""

    cpu: list[float]
    uncollected: list[float]
    wall: list[float]
    collection: list[float]
    late: list[float]


async def held(
    loop: SliceTimedLoop, burst: Burst, count: int, heartbeat: ModuleType
) -> tuple[float, object]:
    """Lateness in ms of the latest beat during one burst, and the burst's results.

    The loop keeps what its longest callbacks took.
    """
    await burst(WARM_UP)
    beats = heartbeat.Heartbeat(interval=BEAT)
    loop.reset()
    beats.start()
    # A task, so that the burst's first stretch is a callback of its own, seen from its start.
    results = await loop.create_task(burst(count))
    return float(beats.stop().max) * 1_000, results


def run(options: Options) -> Section:
    """Measure the row of the table on cost at a million tokens, and on the loop's freedom."""
    heartbeat = _gate.load("tokengate.wave.heartbeat")
    section = Section("scale", EXPLANATION)
    large = options.pick(1_000_000, 262_144)
    bursts: dict[str, Burst] = {
        FLOOR: floor,
        GATHER: functools.partial(gathered, _gate.guard(noop, "bench.noop")),
        MAP: mapped(),
    }
    blocked = Blocked([], [], [], [], [])
    with (
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        asyncio.Runner(loop_factory=SliceTimedLoop) as timing,
    ):
        loop = timing.get_loop()
        assert isinstance(loop, SliceTimedLoop)
        gc.callbacks.append(loop.watch_collector)

        def hold() -> float:
            late, results = timing.run(held(loop, bursts[MAP], large, heartbeat))
            # Only now: comparing them on the loop would count as a callback.
            if results != list(range(large)):
                raise AssertionError(".map came back with other results than its calls' own")
            blocked.late.append(late)
            blocked.cpu.append(loop.longest_cpu * 1_000)
            blocked.uncollected.append(loop.longest_uncollected_cpu * 1_000)
            blocked.wall.append(loop.longest_wall * 1_000)
            blocked.collection.append(loop.longest_collection * 1_000)
            return late

        trials: dict[str, Callable[[], float]] = {
            f"{name} of {count:,}": functools.partial(
                trial, runner, burst, count, check=name != FLOOR
            )
            for name, burst in bursts.items()
            for count in (options.burst, large)
        }
        samples = interleave({**trials, "the loop during .map": hold}, options)

    for name in bursts:
        small = samples[f"{name} of {options.burst:,}"]
        big = samples[f"{name} of {large:,}"]
        section.lines.setdefault("us a call on asyncio", []).extend(
            [Line(name, options.burst, small), Line(name, large, big)]
        )
        section.figures.append(
            Figure(
                f"{name}: cost a call at {large:,} against {options.burst:,}",
                "x the cost",
                ratios(big, small),
                None if name == FLOOR else COST_TARGET,
            )
        )
    section.figures += [
        Figure(
            f".map of {large:,}: longest callback, CPU time",
            "ms",
            tuple(blocked.cpu),
            BLOCKED_TARGET,
        ),
        Figure("the longest but for garbage collections", "ms", tuple(blocked.uncollected)),
        Figure("the longest garbage collection, CPU time", "ms", tuple(blocked.collection)),
        Figure("the longest callback, wall time", "ms", tuple(blocked.wall)),
        Figure(f"a heartbeat of {BEAT * 1_000:g} ms, its latest beat", "ms", tuple(blocked.late)),
    ]
    return section


if __name__ == "__main__":
    raise SystemExit(main({"scale": run}))
