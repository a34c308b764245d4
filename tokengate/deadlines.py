"""Deadlines that calls inherit, and the way for a function to notice that its token has ended."""

from __future__ import annotations

from contextvars import Token as Reset
from time import monotonic_ns
from types import TracebackType
from typing import Any, Self

from tokengate import _core
from tokengate.errors import TokenCancelled
from tokengate.policy import LONGEST

__all__ = ["checkpoint", "deadline"]


class deadline:  # noqa: N801 - reads like the statement it stands for
    """``with deadline(seconds):`` sets the time by which tokens created inside must have ended.

    Those created inside the functions they run inherit it; of nested deadlines, and of an
    operation's own timeout, the earliest counts. A token whose deadline passes expires: its
    awaiters get `TokenExpired`. Also inside ``async`` code, for the current task and those it
    starts. Does not interrupt the block itself. TypeError or ValueError for what seconds cannot be.
    """

    def __init__(self, seconds: float) -> None:
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            raise TypeError(f"deadline({seconds!r}): expected seconds as a number")
        if seconds != seconds or seconds < 0:
            raise ValueError(f"deadline({seconds!r}): expected 0 seconds or more")
        self._seconds = float(min(seconds, LONGEST))
        self._resets: list[Reset[int]] = []

    def __enter__(self) -> Self:
        outer = _core._deadline_var.get(None)
        mine = monotonic_ns() + int(self._seconds * 1e9)
        self._resets.append(_core._deadline_var.set(mine if outer is None else min(mine, outer)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _core._deadline_var.reset(self._resets.pop())


def checkpoint() -> None:
    """Inside a guarded function: raise `TokenCancelled` if its token has ended.

    Cancelled, expired and killed tokens end at once for those who wait, but nothing can stop a
    thread from outside; a function that calls this now and then stops by itself. Outside a token it
    does nothing. Any thread; costs well under a microsecond and does not block.
    """
    token: Any = _core.current_token()
    if token is not None and token.done():
        raise TokenCancelled(f"{token!r} has ended: nobody waits for this run any more")
