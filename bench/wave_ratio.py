"""The whole wave run through TokenGate against the same calls made plainly."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import _gate
from _bare_processes import BARE as PROCESSES
from _bare_processes import WORKERS, at_once, bare_processes
from _bare_threads import BARE, on_bare_threads
from _cli import main
from _figures import Figure, Line, Section, Target, ratios
from _harness import Options, gil_enabled, interleave, progress

if TYPE_CHECKING:
    from tokengate import Token
    from tokengate.wave.mix import TaskMix

WAVES = 15
QUICK_WAVES = 11
LOOP = "plain for loop"
GATE = "TokenGate"

CHECK_EVERY = 61
"""One result in so many is computed again and compared; a prime, so that all four tasks come."""

EXPLANATION = """\
The calls of `tokengate wave`, in waves of 4, 8, 16 ... tokens, through TokenGate (all of a wave
submitted at once and gathered, on the default coordinator) and plainly; microseconds a call, all
waves of a round added up, each from its first call to its last result. The contestants take turns
wave by wave. plain for loop: one call after the other on the main thread. two bare threads: each
takes the next call from a deque they share and puts the result into a list; starting and joining
them is counted. With the GIL the loop is the measure, without it the two threads are. On the lanes
outside this interpreter the loop is, always; there two bare processes, which make half the calls
each and send nothing back, show how much of a second CPU this machine has to give."""


def share(pipe: Connection) -> None:
    """One of two bare processes: half the calls of each wave; from 8 on, of each task."""
    from tokengate.wave.mix import TaskMix
    from tokengate.wave.tasks import REFERENCE_TASKS

    call = TaskMix(REFERENCE_TASKS).call_plain
    while (order := pipe.recv()) is not None:
        count, half = order
        for index in range(count):
            if (index + index // 4) % WORKERS == half:
                call(index)
        pipe.send(None)


class Race:
    """The contestants, each with all the calls of one wave to make, and what came of them.

    pipes: to the bare processes, if there are any.
    """

    def __init__(
        self, mix: TaskMix[Token[Any]], runner: asyncio.Runner, pipes: list[Connection]
    ) -> None:
        self._mix = mix
        self._runner = runner
        self._pipes = pipes
        self.ok = 0
        self.failed = 0

    def through_gate(self, count: int) -> float:
        """Seconds of a wave of tokens, gathered."""

        async def wave() -> tuple[float, list[object]]:
            submit = self._mix.submit
            start = time.perf_counter()
            tokens = [submit(index) for index in range(count)]
            results = await asyncio.gather(*tokens, return_exceptions=True)
            return time.perf_counter() - start, results

        seconds, results = self._runner.run(wave())
        failed = sum(isinstance(result, BaseException) for result in results)
        self.failed += failed
        self.ok += count - failed
        self._check(results)
        return seconds

    def plainly(self, count: int) -> float:
        """Seconds of a wave in a plain loop."""
        call = self._mix.call_plain
        results: list[object] = []
        start = time.perf_counter()
        for index in range(count):
            results.append(call(index))  # noqa: PERF401 - the plain loop a user would write
        seconds = time.perf_counter() - start
        self._check(results)
        return seconds

    def on_bare_threads(self, count: int) -> float:
        """Seconds of a wave shared out between threads as they go."""
        call = self._mix.call_plain
        results: list[object] = [None] * count

        def work(index: int) -> None:
            results[index] = call(index)

        seconds = on_bare_threads(work, deque(range(count)))
        self._check(results)
        return seconds

    def on_bare_processes(self, count: int) -> float:
        """Seconds until both have made their half of the calls of a wave."""
        return at_once(self._pipes, *[(count, half) for half in range(WORKERS)])

    def _check(self, results: list[object]) -> None:
        for index in range(0, len(results), CHECK_EVERY):
            if results[index] != self._mix.call_plain(index):
                raise AssertionError(f"call {index} of a wave came back with a wrong result")


def run(options: Options, lane: str = "thread") -> Section:
    """Measure a wave row of the table; of the thread lane the one for this interpreter."""
    _gate.load("tokengate.wave.tasks")
    from tokengate.wave.lanes import on_lane
    from tokengate.wave.mix import TaskMix
    from tokengate.wave.plan import WARM_UP_TOKENS, doubling
    from tokengate.wave.tasks import REFERENCE_TASKS

    apart = lane != "thread"
    section = Section(f"wave, {lane} lane" if apart else "wave", EXPLANATION)
    waves = doubling(options.pick(WAVES, QUICK_WAVES))
    plain = LOOP if apart or gil_enabled() else BARE
    with (
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        contextlib.ExitStack() as stack,
    ):
        pipes = stack.enter_context(bare_processes(share)) if apart else []
        race = Race(TaskMix(on_lane(REFERENCE_TASKS, lane)), runner, pipes)
        contestants = {
            GATE: race.through_gate,
            plain: race.plainly if plain is LOOP else race.on_bare_threads,
        }
        if apart:
            contestants[PROCESSES] = race.on_bare_processes
        samples: dict[str, list[float]] = {name: [] for name in contestants}
        for contestant in contestants.values():
            contestant(WARM_UP_TOKENS)
        race.ok = race.failed = 0
        for number in range(options.rounds):
            total = dict.fromkeys(contestants, 0.0)
            for count in waves:
                progress(f"round {number + 1}/{options.rounds}: wave of {count:,}")
                one = dataclasses.replace(
                    options, rounds=1, seed=hash((options.seed, number, count))
                )
                for name, (seconds,) in interleave(
                    {
                        name: functools.partial(contestant, count)
                        for name, contestant in contestants.items()
                    },
                    one,
                ).items():
                    total[name] += seconds
            for name, seconds in total.items():
                samples[name].append(seconds / sum(waves) * 1e6)

    calls = sum(waves)
    section.lines["us a call"] = [
        Line(name, calls, tuple(values)) for name, values in samples.items()
    ]
    section.figures.append(figure(plain, samples[GATE], samples[plain], 0.6 if apart else 1.2))
    if apart:
        bare = ratios(samples[PROCESSES], samples[plain])
        section.figures.append(Figure(f"{PROCESSES} against the {LOOP}", "x the time", bare))
    section.figures += [
        Figure("tokens ok", "tokens", (race.ok,), Target("at least", calls * options.rounds)),
        Figure("tokens failed", "tokens", (race.failed,), Target("at most", 0)),
    ]
    if not apart:
        section.skipped.append(
            "the figure against two bare threads: this interpreter has the GIL"
            if plain is LOOP
            else "the figure against a plain for loop: this interpreter is free-threaded"
        )
    return section


def figure(plain: str, gate: list[float], peer: list[float], most: float) -> Figure:
    """The ratio that counts; most: x the time of the loop."""
    if plain is LOOP:
        target = Target("at most", most, aim=1.1 if most > 1 else None)
        return Figure(
            "TokenGate against the plain for loop", "x the time", ratios(gate, peer), target
        )
    return Figure(
        "TokenGate against two bare threads",
        "x the throughput",
        ratios(peer, gate),
        Target("at least", 0.95),
    )


if __name__ == "__main__":
    raise SystemExit(main({"wave": run}))
