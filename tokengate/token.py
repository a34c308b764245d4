"""The token: one call of a guarded function, from creation to its end."""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tokengate._core import TokenBase

__all__ = ["Token", "TokenState"]

R_co = TypeVar("R_co", covariant=True)


class TokenState(enum.IntEnum):
    """Where a token is in its one lifecycle.

    The first four follow each other; exactly one of the last five ends it.
    """

    CREATED = 0
    WAITING = 1
    ADMITTED = 2
    EXECUTING = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6
    EXPIRED = 7
    KILLED = 8

    @property
    def ended(self) -> bool:
        """True for the five states that end a token."""
        return self >= TokenState.COMPLETED


_STATES = tuple(TokenState)


class Token(TokenBase, Generic[R_co]):
    """One call of a guarded function; awaitable, and a future in every way asyncio asks for.

    Guarded functions, `Coordinator.submit` and `.map` make tokens; user code does not. ``await
    token`` gives the function's result or raises what the token ended with, as often as it is
    asked. `asyncio.gather`, `wait`, `wait_for`, `shield`, `as_completed` and `timeout` take tokens
    directly. Off any event loop use `result()`, which blocks.

    All properties may be read from any thread and do not block.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait on the token's event loop. RuntimeError on any other loop, or where none runs."""
        try:
            if not self.done():
                self._begin_await()
                yield self
                if not self.done():
                    raise RuntimeError(f"{self!r} was resumed before it ended: use `await`")
            return self.result()
        finally:
            # What is raised here, or thrown in by the task, keeps this frame in its traceback,
            # and with it the token.
            self = None  # type: ignore[assignment]

    __iter__ = __await__  # asyncio's Future has it, for `yield from`

    @property
    def state(self) -> TokenState:
        """Where the token is in its lifecycle; a snapshot."""
        return _STATES[self.state_code]

    if TYPE_CHECKING:  # the compiled method as it is; only here it is known what it returns

        def result(self, timeout: float | None = None) -> R_co:
            """The function's result, or raises what the token ended with.

            timeout: seconds, None: for ever. On a thread without a running event loop this blocks
            until the token has ended (`TimeoutError` when the timeout passes first; Ctrl-C works on
            the main thread); a worker that blocks here runs the token itself if it has not started.
            On a thread with a running loop a token that has not ended raises
            `asyncio.InvalidStateError`: await it instead.
            """
            ...
