"""A limit whose tokens end before their functions do, and a low priority behind a high one."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from _figures import Figure, Section, Target
from _harness import Options, interleave
from _policy import Crowd, cancel_all, changed, guarded, new_coordinator
from _work import iterations_for, job

if TYPE_CHECKING:
    from tokengate import Token

LIMIT = 4
HOLD = 0.003
EXPIRES_IN = 0.001
OTHERS = 10
"""Tokens of the other operation for each limited one."""
OTHERS_SLEEP = 0.010
IDLE_BOUND = 20
"""Milliseconds. A thread takes a moment to come round to its next function, and where CPUs are
shared that can be a few of the system's time slices."""

SATURATING = 40_000
URGENT = 10
PATIENCE = 15

LIMIT_EXPLANATION = """\
10,000 tokens of one operation with limit=4, whose functions sleep 3 ms. A quarter is cancelled
by another thread while executing, a quarter expires by run_timeout=0.001 while executing; their
functions run on, and keep their places. Tokens of another operation wait all the time, 10 ms
sleeps, more of them than can run. Counted in the functions themselves: the most of the limited ones
inside at once, and the longest stretch with none of the others inside, in which workers were idle
or at the limited ones only. Places used: the least time four places could do it in, against the
time it took."""

PRIORITY_EXPLANATION = """\
40,000 tokens of priority 10 wait, more than any run takes, and one of priority 0 is made behind
them: seconds from its creation to its start. It is given up after 15 s, and the rest cancelled as
soon as it has run. A new coordinator each time."""


@dataclass(frozen=True, slots=True)
class Crowded:
    """One run behind a limit."""

    peak: int
    longest_idle: float
    used: float
    cancelled: int
    expired: int


async def crowd_limit(count: int) -> Crowded:
    """`count` tokens behind a limit. AssertionError if one ended in a way it could not have."""
    limited = Crowd()
    doomed: queue.SimpleQueue[Token[Any] | None] = queue.SimpleQueue()
    async with new_coordinator() as coordinator:
        from tokengate import current_token

        def hold(cancel: bool) -> None:
            with limited.member():
                if cancel:
                    doomed.put(current_token())
                time.sleep(HOLD)

        def other() -> None:
            with others.member():
                time.sleep(OTHERS_SLEEP)

        def cancel_doomed() -> None:
            while (token := doomed.get()) is not None:
                token.cancel()

        plain = guarded(coordinator, hold, "bench.limited", limit=LIMIT)
        expiring = changed(plain, run_timeout=EXPIRES_IN)
        call_other = guarded(coordinator, other, "bench.others")
        canceller = threading.Thread(target=cancel_doomed)
        canceller.start()
        others = Crowd()
        beside = [call_other() for _ in range(count * OTHERS)]
        try:
            start = time.perf_counter()
            tokens: list[Token[None]] = [
                expiring(False) if i % 4 == 1 else plain(i % 4 == 0) for i in range(count)
            ]
            await asyncio.gather(*tokens, return_exceptions=True)
            took = time.perf_counter() - start
            longest_idle = others.longest_empty()
            if all(token.done() for token in beside):
                raise AssertionError("nothing else waited at the end: make more of the others")
        finally:
            cancel_all(beside)
            doomed.put(None)
            canceller.join()
    cancelled, expired = count_ends(tokens, limited.entered)
    return Crowded(limited.peak, longest_idle, count * HOLD / LIMIT / took, cancelled, expired)


def count_ends(tokens: list[Token[None]], entered: int) -> tuple[int, int]:
    """How many were cancelled and how many expired. AssertionError unless the sums are right."""
    from tokengate import TokenState

    states = [token.state for token in tokens]
    cancelled, expired, completed = (
        states.count(state)
        for state in (TokenState.CANCELLED, TokenState.EXPIRED, TokenState.COMPLETED)
    )
    if not entered == cancelled + expired + completed == len(tokens):
        raise AssertionError(
            f"of {len(tokens)} tokens {entered} ran; {cancelled} ended cancelled, {expired} "
            f"expired, {completed} completed"
        )
    return cancelled, expired


async def start_behind(saturating: tuple[float, int]) -> float:
    """Seconds until a token of priority 0 starts behind many of priority 10."""
    async with new_coordinator() as coordinator:
        urgent = guarded(coordinator, job, "bench.urgent", priority=URGENT)
        patient = guarded(coordinator, job, "bench.patient", priority=0)
        waiting = [urgent(*saturating) for _ in range(SATURATING)]
        token = patient(0, 0)
        await asyncio.wait([asyncio.ensure_future(token)], timeout=PATIENCE)
        # Whatever it is, nothing of it is to run on.
        unending = not all(each.done() for each in waiting)
        token.cancel()
        cancel_all(waiting)
        if not unending:
            raise AssertionError("the urgent tokens ended before the patient one did")
    return token.wait_time


def run(options: Options) -> Section:
    """Measure the row of the limit."""
    section = Section("limit", LIMIT_EXPLANATION)
    count = options.pick(10_000, 2_000)
    runs: list[Crowded] = []

    def trial() -> float:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runs.append(runner.run(crowd_limit(count)))
        return runs[-1].used

    interleave({"limit": trial}, options)
    section.figures += [
        Figure(
            f"most functions of limit={LIMIT} at once, of all rounds",
            "functions",
            (max(each.peak for each in runs),),
            Target("at most", LIMIT),
        ),
        Figure(
            "longest stretch with none of those that wait",
            "ms",
            tuple(each.longest_idle * 1e3 for each in runs),
            Target("at most", IDLE_BOUND),
        ),
        Figure("places used", "of the time", tuple(each.used for each in runs)),
        Figure("cancelled while executing", "tokens", tuple(each.cancelled for each in runs)),
        Figure("expired while executing", "tokens", tuple(each.expired for each in runs)),
    ]
    return section


def run_priority(options: Options) -> Section:
    """Measure the row of the low priority."""
    section = Section("priority", PRIORITY_EXPLANATION)
    kinds = {
        "5 ms of Python": (0.0, iterations_for(0.005)),
        "20 ms sleeps": (0.020, 0),
    }

    def trial(saturating: tuple[float, int]) -> float:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(start_behind(saturating))

    trials = {name: functools.partial(trial, saturating) for name, saturating in kinds.items()}
    if options.quick:
        options = dataclasses.replace(options, rounds=1)
    section.figures += [
        Figure(f"priority 0 starts behind priority 10, {name}", "s", samples, Target("at most", 5))
        for name, samples in interleave(trials, options).items()
    ]
    return section
