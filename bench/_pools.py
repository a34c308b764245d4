"""The pools that work is given to: TokenGate with its default settings, and thread pools."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import _gate

Call = Callable[..., Awaitable[Any]]
Bind = Callable[[Callable[..., Any], str], Call]
"""From a function, and an operation to count it under, to what calls it on the pool."""

GATE = "TokenGate"
DEFAULT = "default executor"
POOL_SIZES = (1, 4, 8, 32)


@dataclass(slots=True)
class Opened:
    """A pool that takes calls. `limit()`: how many it lets execute at once at this moment."""

    bind: Bind
    limit: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Pool:
    """One contestant. `open()`, on a running loop, starts it with no threads yet, and ends it."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Opened]]


@asynccontextmanager
async def token_gate() -> AsyncIterator[Opened]:
    """A coordinator with default settings. Raises `Missing` without TokenGate."""
    _gate.load()
    from tokengate import Coordinator

    async with Coordinator(name="bench") as coordinator:

        def bind(function: Callable[..., Any], operation: str) -> Call:
            return _gate.guard(function, operation).options(coordinator=coordinator)

        yield Opened(bind, lambda: coordinator.stats().lanes["thread"].limit)


@asynccontextmanager
async def thread_pool(size: int) -> AsyncIterator[Opened]:
    """`loop.run_in_executor` on a `ThreadPoolExecutor` of `size` threads."""
    with ThreadPoolExecutor(size, f"pool{size}") as pool:
        yield executor(pool, size)


@asynccontextmanager
async def default_executor() -> AsyncIterator[Opened]:
    """`loop.run_in_executor(None, ...)`: the loop's own pool, which ends with the loop."""
    with ThreadPoolExecutor() as alike:
        size = alike._max_workers
    yield executor(None, size)


def executor(pool: ThreadPoolExecutor | None, size: int) -> Opened:
    """Calls on `pool` of the running loop."""
    submit = asyncio.get_running_loop().run_in_executor

    def bind(function: Callable[..., Any], operation: str) -> Call:
        return functools.partial(submit, pool, function)

    return Opened(bind, lambda: size)


def gate() -> Pool:
    """TokenGate."""
    return Pool(GATE, token_gate)


def pools(*sizes: int, default: bool = False) -> list[Pool]:
    """The peers: thread pools of these sizes, and the loop's default executor if asked for."""
    found = [
        Pool(f"ThreadPoolExecutor({size})", functools.partial(thread_pool, size)) for size in sizes
    ]
    return [*found, Pool(DEFAULT, default_executor)] if default else found
