"""What a token can fail with, apart from the function's own exception.

One tree, so that ``except TokenGateError`` catches all of it and the leaves say what happened:

- `TokenExpired` (also a `TimeoutError`): a deadline passed.
- `TokenKilled`: ended by administration; `GateFull` (refused or shed by the overflow policy) and
  `CoordinatorStopped` are its special cases.
- `FunctionExited`: the function raised something that must not act on the awaiter's loop.
- `LaneUnavailable`: the lane asked for cannot run here.
- `WorkerDied`: the process that ran the function ended; `OperationQuarantined` (a `TokenKilled`):
  that happened three times in a row.
- `TokenDeadlock`: waiting for a token that could never end.

`TokenCancelled` is a BaseException, so that ``except Exception`` does not swallow it: `checkpoint`
raises it inside a function whose token has ended. A token cancelled by its caller raises
`asyncio.CancelledError`, or, where a thread without a running loop blocks on it,
`concurrent.futures.CancelledError`.
"""

from __future__ import annotations

__all__ = [
    "CoordinatorStopped",
    "FunctionExited",
    "GateFull",
    "LaneUnavailable",
    "OperationQuarantined",
    "TokenCancelled",
    "TokenDeadlock",
    "TokenExpired",
    "TokenGateError",
    "TokenKilled",
    "WorkerDied",
]


class TokenGateError(Exception):
    """Base of everything TokenGate raises by itself."""


class TokenExpired(TokenGateError, TimeoutError):
    """The token's deadline passed before it completed."""


class TokenKilled(TokenGateError):
    """The token was ended by administration; `reason` says why."""

    def __init__(self, reason: str = "killed") -> None:
        super().__init__(reason)
        self.reason = reason


class GateFull(TokenKilled):
    """The operation's queue was full: the call was refused, or shed for a newer one."""


class CoordinatorStopped(TokenKilled):
    """The coordinator was stopped before the token could run or finish."""


class FunctionExited(TokenGateError):
    """The function raised an exception that would act on the awaiter instead of informing it.

    `SystemExit`, `KeyboardInterrupt`, `GeneratorExit`, `StopIteration`, `StopAsyncIteration`,
    `asyncio.CancelledError` and `TokenCancelled` would stop or confuse the awaiting event loop;
    they arrive as this, with the original as ``__cause__``. The worker lives on.
    """


class TokenDeadlock(TokenGateError):
    """A function waits for a token that waits, in the end, for that very function."""


class TokenCancelled(BaseException):
    """Raised by `checkpoint` inside a function whose token has ended; clean up and let it pass."""


class LaneUnavailable(TokenGateError):
    """The lane asked for cannot run on this interpreter; the message says what it needs."""


class WorkerDied(TokenGateError):
    """The process that ran the function ended before it returned; the message says how."""


class OperationQuarantined(TokenKilled):
    """The operation's runs kept killing their workers; `Coordinator.resume` takes it again."""
