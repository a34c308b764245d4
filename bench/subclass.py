"""What the public `Token`, a Python subclass, costs over the compiled token beneath it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any

import _gate
from _cli import main
from _contestants import noop
from _figures import Figure, Line, Section, Target
from _harness import Missing, Options, interleave

TARGET = Target("at most", 0.15)
BATCH = 1_000
PUBLIC = "a waiting token's life, Token"
BASE = "a waiting token's life, TokenBase"
AWAIT_TOKEN = "awaited, ended: a token"  # noqa: S105 - not that kind of token
AWAIT_FUTURE = "awaited, ended: an asyncio.Future"

EXPLANATION = """\
Microseconds. a waiting token's life: created by a guard, cancelled before it starts and dropped,
with the only worker held elsewhere, so that no other thread has a part in it; once with tokens of
the public class and once with the compiled base class itself, which is the same but for being a
Python subclass. awaited, ended: `await` of a token that has ended, whose `__await__` is Python,
and of an asyncio.Future that is done, whose own is C."""


def make_guard(core: Any, token_class: type, coordinator: Any) -> Callable[[int], Any]:
    """The compiled half of a guarded no-op whose calls make tokens of `token_class`."""
    nobody = contextvars.ContextVar[Any](f"bench_{token_class.__name__}")
    runtime = core.Runtime(token_class, nobody, coordinator)
    guard: Any = core.GuardBase()
    guard._set_up(runtime, noop, "bench.noop", MappingProxyType({}), core.Policy(), coordinator)
    call: Callable[[int], Any] = guard
    return call


def lives(call: Callable[[int], Any], count: int) -> float:
    """Microseconds of a token created, cancelled and dropped, in batches that wait together."""
    spent = 0.0
    for _ in range(count // BATCH):
        start = time.perf_counter()
        tokens = [call(i) for i in range(BATCH)]
        for token in tokens:
            token.cancel()
        spent += time.perf_counter() - start
        if not all(token.cancelled() for token in tokens):
            raise AssertionError("a token ran although the only worker was held")
        start = time.perf_counter()
        tokens.clear()
        token = None
        spent += time.perf_counter() - start
    return spent / (count // BATCH * BATCH) * 1e6


def awaits(awaitable: Awaitable[int], count: int) -> float:
    """Microseconds of one `await` of something that has ended, which never suspends."""

    async def repeat() -> float:
        start = time.perf_counter()
        for _ in range(count):
            await awaitable
        return (time.perf_counter() - start) / count * 1e6

    coroutine = repeat()
    try:
        coroutine.send(None)
    except StopIteration as end:
        return float(end.value)
    raise AssertionError("awaiting something that has ended suspended")


async def measure(options: Options) -> dict[str, tuple[float, ...]]:
    """Microseconds of each trial, by name, in every round.

    On a running loop, to which tokens and future belong as they would in an application.
    """
    core: Any = _gate.load("tokengate._core")
    package: Any = _gate.load()
    count = count_of(options)
    loop = asyncio.get_running_loop()
    started = asyncio.Event()
    let_go = threading.Event()

    def hold() -> None:
        loop.call_soon_threadsafe(started.set)
        let_go.wait()

    async with package.Coordinator(thread_workers=1, name="bench-subclass") as coordinator:
        token = coordinator.submit(noop, 1)
        await token
        future: asyncio.Future[int] = loop.create_future()
        future.set_result(1)
        holder = coordinator.submit(hold)
        await started.wait()
        try:
            return interleave(
                {
                    PUBLIC: functools.partial(
                        lives, make_guard(core, package.Token, coordinator), count
                    ),
                    BASE: functools.partial(
                        lives, make_guard(core, core.TokenBase, coordinator), count
                    ),
                    AWAIT_TOKEN: functools.partial(awaits, token, count),
                    AWAIT_FUTURE: functools.partial(awaits, future, count),
                },
                options,
            )
        finally:
            let_go.set()
            await holder


def count_of(options: Options) -> int:
    """Tokens and awaits of one trial."""
    return options.pick(200_000, 50_000)


def run(options: Options) -> Section:
    """Measure what the subclass costs. `Missing` where the compiled core has no such classes."""
    core = _gate.load("tokengate._core")
    absent = [name for name in ("TokenBase", "GuardBase", "Runtime") if not hasattr(core, name)]
    if absent:
        raise Missing(f"the compiled core has no {', '.join(absent)}: there is no base to compare")
    section = Section("subclass", EXPLANATION)
    samples = asyncio.run(measure(options))
    section.lines["us a token"] = [
        Line(name, count_of(options), values) for name, values in samples.items()
    ]
    section.figures += [
        Figure(
            "a token's life: the subclass over the base",
            "us a token",
            differences(samples[PUBLIC], samples[BASE]),
            TARGET,
        ),
        Figure(
            "awaited, ended: __await__ in Python over a future's in C",
            "us an await",
            differences(samples[AWAIT_TOKEN], samples[AWAIT_FUTURE]),
        ),
    ]
    return section


def differences(above: tuple[float, ...], below: tuple[float, ...]) -> tuple[float, ...]:
    """Round by round `above` - `below`."""
    return tuple(a - b for a, b in zip(above, below, strict=True))


if __name__ == "__main__":
    raise SystemExit(main({"subclass": run}))
