"""What a token costs more when its operation has a policy."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import _gate
from _contestants import noop
from _figures import Figure, Line, Section, Target
from _harness import Options, interleave
from _policy import guarded

if TYPE_CHECKING:
    from tokengate import Coordinator, GuardedFunction

OPERATIONS = 50
WARM_UP = 1_024
PLAIN = "no policy, one operation"
ALL = "all of it, 50 operations"

EXPLANATION = """\
A burst of no-op tokens, made in turn for each operation and gathered, on asyncio's loop and the
default coordinator, to which a guarded function has a shorter way than to others; microseconds a
token from the first call to the last result.
Without a policy, on one operation, it is the plain path. The key is made by a Python function of
one line, whose cost is in it; each operation sees 16 different ones."""


def by_last_digit(value: int) -> int:
    """A key of the kind users write: a function of the call's arguments."""
    return value & 15


LIMIT = {"limit": 32, "max_waiting": 1_000_000}
PRIORITY = {"priority": 1}
TIMEOUTS = {"timeout": 600.0, "run_timeout": 600.0}
KEY = {"key": by_last_digit, "key_limit": 1}
CONTESTANTS: dict[str, tuple[int, dict[str, Any]]] = {
    PLAIN: (1, {}),
    "no policy, 50 operations": (OPERATIONS, {}),
    "limit and max_waiting, 50 operations": (OPERATIONS, LIMIT),
    "priority, 50 operations": (OPERATIONS, PRIORITY),
    "timeout and run_timeout, 50 operations": (OPERATIONS, TIMEOUTS),
    "key, 50 operations": (OPERATIONS, KEY),
    ALL: (OPERATIONS, {**LIMIT, **PRIORITY, **TIMEOUTS, **KEY}),
}


async def burst(calls: list[GuardedFunction[[int], int]], count: int) -> float:
    """Microseconds a token of `count` tokens, in turn of these functions."""
    several = len(calls)
    await asyncio.gather(*[calls[i % several](i) for i in range(WARM_UP)])
    start = time.perf_counter()
    results = await asyncio.gather(*[calls[i % several](i) for i in range(count)])
    took = time.perf_counter() - start
    if results != list(range(count)):
        raise AssertionError("tokens came back with other results than their calls' own")
    return took / count * 1e6


def functions(
    coordinator: Coordinator, name: str, several: int, policy: dict[str, Any]
) -> list[GuardedFunction[[int], int]]:
    """So many operations of the same policy."""
    return [
        guarded(coordinator, noop, f"bench.{name}.{number}", **policy) for number in range(several)
    ]


def run(options: Options) -> Section:
    """Measure the row of admission with every feature."""
    section = Section("features", EXPLANATION)
    _gate.load()
    from tokengate import get_coordinator

    count = options.pick(65_536, 16_384)
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        coordinator = get_coordinator()

        def trial(calls: list[GuardedFunction[[int], int]]) -> float:
            return runner.run(burst(calls, count))

        trials: dict[str, Callable[[], float]] = {
            name: functools.partial(trial, functions(coordinator, name, several, policy))
            for name, (several, policy) in CONTESTANTS.items()
        }
        samples = interleave(trials, options)
    section.lines["us a token"] = [Line(name, count, samples[name]) for name in CONTESTANTS]
    for name in list(CONTESTANTS)[1:]:
        more = tuple(a - b for a, b in zip(samples[name], samples[PLAIN], strict=True))
        section.figures.append(
            Figure(
                f"more than the plain path: {name}",
                "us a token",
                more,
                Target("at most", 1.5) if name == ALL else None,
            )
        )
    return section
