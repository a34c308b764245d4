"""One light token every 10 ms behind 65,536 heavy ones."""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from _figures import Figure, Section, Target
from _harness import Options, interleave
from _lag import percentile
from _policy import cancel_all, guarded, new_coordinator
from _work import iterations_for, job

if TYPE_CHECKING:
    from tokengate import Token

HEAVY = 65_536
EVERY = 0.010
PATIENCE = 10

EXPLANATION = """\
65,536 heavy tokens of one operation wait, and as they execute a token of another operation that
does nothing is made every 10 ms, for some seconds; then the rest is cancelled. Wait: from the
creation of a light token to its start, as the token itself has it. It is told in executions: what
a heavy one takes on an idle machine, which is less than it takes beside others. Nothing is known
of either operation at first: each run has a new coordinator. From due to result: also what the
loop was late to make it and to hear of its end. Ten seconds after the last was made it ends."""


@dataclass(frozen=True, slots=True)
class Heavy:
    """What a heavy token does for `seconds`, and what its light neighbours may wait."""

    name: str
    seconds: float
    sleeps: bool

    def arguments(self) -> tuple[float, int]:
        """What `job` is called with."""
        return (self.seconds, 0) if self.sleeps else (0, iterations_for(self.seconds))

    def figure(self, waits: tuple[float, ...]) -> Figure:
        """The p99 wait of each round against its bound."""
        what = f"light p99 wait behind {self.name}"
        if self.seconds < 0.1:
            executions = tuple(wait / self.seconds for wait in waits)
            return Figure(what, "executions", executions, Target("at most", 5))
        return Figure(what, "ms", tuple(wait * 1e3 for wait in waits), Target("at most", 150))


KINDS = (
    Heavy("13 ms of Python", 0.013, sleeps=False),
    Heavy("10 ms sleeps", 0.010, sleeps=True),
    Heavy("0.5 s of Python", 0.5, sleeps=False),
    Heavy("0.5 s sleeps", 0.5, sleeps=True),
)


@dataclass(frozen=True, slots=True)
class Waits:
    """What the light tokens of one run saw, in seconds, and how long a heavy one ran."""

    p99: float
    longest: float
    p99_result: float
    heavy_run: float


def light() -> None:
    """Nothing: all that is of interest is when it starts."""


async def wait_behind(heavy: Heavy, seconds: float) -> Waits:
    """Light tokens behind heavy ones for so long."""
    async with new_coordinator() as coordinator:
        load = guarded(coordinator, job, "bench.heavy")
        arguments = heavy.arguments()
        queue = [load(*arguments) for _ in range(HEAVY)]
        loop = asyncio.get_running_loop()
        call = guarded(coordinator, light, "bench.light")

        async def one(token: Token[None], due: float) -> float:
            await token
            return loop.time() - due

        lights: list[Token[None]] = []
        tasks: list[asyncio.Task[float]] = []
        # Grid and not a sleep after each: a loop that is late does not make fewer of them.
        begin = loop.time()
        while (due := begin + len(tasks) * EVERY) < begin + seconds:
            await asyncio.sleep(due - loop.time())
            lights.append(call())
            tasks.append(asyncio.create_task(one(lights[-1], due)))
        _, late = await asyncio.wait(tasks, timeout=PATIENCE)
        # Of one that has not started: the seconds up to now.
        waits = [token.wait_time for token in lights]
        now = loop.time() - begin
        results = [
            task.result() if task.done() else now - number * EVERY
            for number, task in enumerate(tasks)
        ]
        run = coordinator.stats().operations["bench.heavy"].run.mean
        unending = not all(token.done() for token in queue)
        for task in late:
            task.cancel()
        cancel_all(queue)
    if not unending:
        raise AssertionError("no heavy token waited at the end: make more of them")
    return Waits(percentile(waits, 0.99), max(waits), percentile(results, 0.99), run)


def run(options: Options) -> Section:
    """Measure the row of the light tokens, behind each kind of heavy ones."""
    section = Section("light", EXPLANATION)
    seconds = options.pick(10, 2)
    seen: dict[str, list[Waits]] = {kind.name: [] for kind in KINDS}

    def trial(heavy: Heavy) -> float:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            start = time.perf_counter()
            seen[heavy.name].append(runner.run(wait_behind(heavy, seconds)))
            return time.perf_counter() - start

    interleave({kind.name: functools.partial(trial, kind) for kind in KINDS}, options)
    for kind in KINDS:
        waits = seen[kind.name]
        section.figures += [
            kind.figure(tuple(each.p99 for each in waits)),
            Figure("its longest wait", "ms", tuple(each.longest * 1e3 for each in waits)),
            Figure("p99 from due to result", "ms", tuple(each.p99_result * 1e3 for each in waits)),
            Figure("mean run of a heavy one", "ms", tuple(each.heavy_run * 1e3 for each in waits)),
        ]
    return section
