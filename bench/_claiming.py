"""The thread lane without the GIL: against two bare threads, and two workers against one."""

from __future__ import annotations

import time
from collections import deque

import _lane_work as work
import tokengate
from _bare_threads import BARE, on_bare_threads
from _figures import Section, Target, against, beside
from _harness import Missing, Options, gil_enabled, interleave
from _work import burn

LANE = "thread lane"
ONE, TWO = "one worker", "two workers"
WARM = 64

EXPLANATION = """\
Only without the GIL. 1.5 ms of Python: the same calls, on the thread lane and on two bare threads
that take them from a deque. no-ops: tokens of a module-level function that wait while their
coordinator is paused, from resume() until the last has finished by the tokens' own clock, so that
making them is not in it, nor asking for their end; nobody awaits them."""

claim_noop = tokengate.task_token_guard("bench.claim.noop")(work.noop)
claim_burn = tokengate.task_token_guard("bench.claim.burn")(burn)


def run(options: Options) -> Section:
    """The free-threaded figures of the thread lane. `Missing` on an interpreter with the GIL."""
    if gil_enabled():
        raise Missing("the free-threaded figures: this interpreter has the GIL")
    section = Section("free-threaded", EXPLANATION)
    turns, calls = work.turns_for(0.0015), options.pick(1_000, 300)
    with tokengate.Coordinator() as coordinator, tokengate.use(coordinator):
        python = interleave(
            {
                LANE: lambda: of_lane(turns, calls),
                BARE: lambda: of_bare_threads(turns, calls),
            },
            options,
        )
    what, add = "1.5 ms of Python", section.figures.append
    beside(add, what, "s", python)
    against(add, what, python[BARE], python[LANE], Target("at least", 0.95), BARE)
    tokens = options.pick(65_536, 16_384)
    noops = interleave({ONE: lambda: claimed(1, tokens), TWO: lambda: claimed(2, tokens)}, options)
    beside(add, "no-ops", "us each", noops)
    against(add, f"no-ops, {TWO}", noops[ONE], noops[TWO], Target("at least", 1.2), ONE)
    return section


def of_lane(turns: int, calls: int) -> float:
    """Seconds."""
    start = time.perf_counter()
    results = list(claim_burn.map([turns] * calls))
    took = time.perf_counter() - start
    if results != [results[0]] * calls:
        raise AssertionError("wrong results")
    return took


def of_bare_threads(turns: int, calls: int) -> float:
    """The same."""
    return on_bare_threads(burn, deque([turns] * calls))


def claimed(workers: int, count: int) -> float:
    """Microseconds a token, from claim to end."""
    with (
        tokengate.Coordinator(thread_workers=workers, loop_lag_target=None) as coordinator,
        tokengate.use(coordinator),
    ):
        for token in [claim_noop() for _ in range(WARM * workers)]:
            token.result()
        coordinator.pause()
        tokens = [claim_noop() for _ in range(count)]
        start = time.monotonic_ns()
        coordinator.resume()
        for token in reversed(tokens):  # the last ones end last; waiting costs no worker anything
            while not token.done():
                time.sleep(0.0003)
        return (max(token.timestamps[3] for token in tokens) - start) / count / 1e3
