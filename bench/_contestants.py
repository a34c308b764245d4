"""The contestants: ways to call one synchronous no-op from a coroutine, TokenGate among them.

A contestant is a way to turn a number into an awaitable on a given loop. Whatever can be bound
beforehand is (`functools.partial` in C), so that no contestant pays for a wrapper of this file.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import _gate
from _harness import Missing

Call = Callable[[int], Awaitable[int]]
Loop = asyncio.AbstractEventLoop
Family = Literal["tokengate", "executor", "peer"]

POOL_SIZES = (2, 8, 32)


def noop(value: int) -> int:
    """The work: nothing, so that all that is measured is the way there and back."""
    return value


def bound(function: Callable[..., Awaitable[Any]], *arguments: object) -> Call:
    """`function` with its first arguments bound, at the price of a partial in C."""
    return functools.partial(function, *arguments)


@dataclass(frozen=True, slots=True)
class Contestant:
    """`bind(loop)` gives the call to time; `family` says which comparisons it takes part in."""

    name: str
    family: Family
    bind: Callable[[Loop], Call]


Maker = Callable[[ExitStack], list[Contestant]]
MAKERS: list[Maker] = []


def contestant(maker: Maker) -> Maker:
    """Enter `maker` in the race. It raises `Missing` when what it needs is not installed."""
    MAKERS.append(maker)
    return maker


@contextmanager
def open_contestants(skipped: list[str]) -> Iterator[list[Contestant]]:
    """All contestants that can run here; the others go to `skipped`. Pools end on leaving."""
    with ExitStack() as stack:
        entered: list[Contestant] = []
        for maker in MAKERS:
            try:
                entered += maker(stack)
            except Missing as missing:
                skipped.append(str(missing))
        yield entered


@contestant
def token_gate(stack: ExitStack) -> list[Contestant]:
    """`noop(i)` of a guarded function, on the default coordinator."""
    guarded = _gate.guard(noop, "bench.noop")
    return [Contestant("TokenGate", "tokengate", lambda loop: guarded)]


@contestant
def run_in_executor(stack: ExitStack) -> list[Contestant]:
    """`loop.run_in_executor` on ready-made pools of 2, 8 and 32 threads."""

    def on(pool: ThreadPoolExecutor) -> Callable[[Loop], Call]:
        return lambda loop: bound(loop.run_in_executor, pool, noop)

    return [
        Contestant(
            f"run_in_executor({size})",
            "executor",
            on(stack.enter_context(ThreadPoolExecutor(size, f"pool{size}"))),
        )
        for size in POOL_SIZES
    ]


@contestant
def to_thread(stack: ExitStack) -> list[Contestant]:
    """`asyncio.to_thread`, on each loop's default executor."""
    call = bound(asyncio.to_thread, noop)
    return [Contestant("asyncio.to_thread", "peer", lambda loop: call)]


@contestant
def anyio_to_thread(stack: ExitStack) -> list[Contestant]:
    """`anyio.to_thread.run_sync`, with its default limit of 40 threads."""
    try:
        import anyio.to_thread
    except ImportError:
        raise Missing("anyio is not installed (pip install anyio): anyio left out") from None
    call = bound(anyio.to_thread.run_sync, noop)
    return [Contestant("anyio.to_thread.run_sync", "peer", lambda loop: call)]


@contestant
def asgiref_sync_to_async(stack: ExitStack) -> list[Contestant]:
    """`asgiref.sync.sync_to_async(noop, thread_sensitive=False)`."""
    try:
        from asgiref.sync import sync_to_async
    except ImportError:
        raise Missing("asgiref is not installed (pip install asgiref): asgiref left out") from None
    call: Call = sync_to_async(noop, thread_sensitive=False)
    return [Contestant("asgiref sync_to_async", "peer", lambda loop: call)]
