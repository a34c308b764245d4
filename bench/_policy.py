"""Guarded functions with a policy, and counting who is inside them."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import _gate

if TYPE_CHECKING:
    from tokengate import Coordinator, GuardedFunction, Token

P = ParamSpec("P")
R = TypeVar("R")


@asynccontextmanager
async def new_coordinator() -> AsyncIterator[Coordinator]:
    """A coordinator with default settings, for one run. Raises `Missing` without TokenGate."""
    _gate.load()
    from tokengate import Coordinator

    async with Coordinator(name="bench") as coordinator:
        yield coordinator


def guarded(
    coordinator: Coordinator, function: Callable[P, R], operation: str, **policy: Any
) -> GuardedFunction[P, R]:
    """`function` as `operation`, with this policy, on `coordinator`."""
    from tokengate import task_token_guard

    guard = task_token_guard(operation_type=operation, **policy)(function)
    return guard.options(coordinator=coordinator)


def changed(guard: GuardedFunction[P, R], **policy: Any) -> GuardedFunction[P, R]:
    """A view of `guard` for calls with this instead."""
    return guard.options(**policy)


def cancel_all(tokens: Iterable[Token[Any]]) -> None:
    """Cancel what has not ended: queues much longer than anybody would wait for."""
    for token in tokens:
        token.cancel()


class Crowd:
    """How many threads are inside a function, the most there have been, and how long none was."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self.entered = 0
        # `+=` is no single step without the GIL
        self._lock = threading.Lock()
        self._longest_empty = 0.0
        self._empty_since = time.perf_counter()

    @contextmanager
    def member(self) -> Iterator[None]:
        """Count this thread as inside."""
        with self._lock:
            if not self.now:
                self._count_empty()
            self.now += 1
            self.entered += 1
            self.peak = max(self.peak, self.now)
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1
                if not self.now:
                    self._empty_since = time.perf_counter()

    def longest_empty(self) -> float:
        """The longest stretch so far, from the beginning, with nobody inside, in seconds."""
        with self._lock:
            if not self.now:
                self._count_empty()
            return self._longest_empty

    def _count_empty(self) -> None:
        empty = time.perf_counter() - self._empty_since
        self._longest_empty = max(self._longest_empty, empty)
