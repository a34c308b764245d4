"""`gather` and `as_completed` of our own: for tokens only, at bulk speed, on and off a loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from time import monotonic
from typing import Any, Generic, Literal, Self, TypeVar, cast, overload

from tokengate import _core
from tokengate.token import Token
from tokengate.waiting import wait_on_loop, wait_on_thread

__all__ = ["AsCompleted", "Gathering", "as_completed", "gather"]

R = TypeVar("R")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")
R4 = TypeVar("R4")
R5 = TypeVar("R5")
R_co = TypeVar("R_co", covariant=True)
ResultsT_co = TypeVar("ResultsT_co", covariant=True)


# As with asyncio.gather, a few tokens are typed one by one: what comes is a list, but only a tuple
# can be spelled out in types.
@overload
def gather(  # pyright: ignore[reportOverlappingOverload]
    token1: Token[R1],
    token2: Token[R2],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Gathering[tuple[R1, R2]]: ...
@overload
def gather(
    token1: Token[R1],
    token2: Token[R2],
    token3: Token[R3],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Gathering[tuple[R1, R2, R3]]: ...
@overload
def gather(
    token1: Token[R1],
    token2: Token[R2],
    token3: Token[R3],
    token4: Token[R4],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Gathering[tuple[R1, R2, R3, R4]]: ...
@overload
def gather(
    token1: Token[R1],
    token2: Token[R2],
    token3: Token[R3],
    token4: Token[R4],
    token5: Token[R5],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Gathering[tuple[R1, R2, R3, R4, R5]]: ...
@overload
def gather(*tokens: Token[R], return_exceptions: Literal[False] = False) -> Gathering[list[R]]: ...
@overload
def gather(  # pyright: ignore[reportOverlappingOverload]
    token1: Token[R1],
    token2: Token[R2],
    /,
    *,
    return_exceptions: Literal[True],
) -> Gathering[tuple[R1 | BaseException, R2 | BaseException]]: ...
@overload
def gather(
    token1: Token[R1],
    token2: Token[R2],
    token3: Token[R3],
    /,
    *,
    return_exceptions: Literal[True],
) -> Gathering[tuple[R1 | BaseException, R2 | BaseException, R3 | BaseException]]: ...
@overload
def gather(
    token1: Token[R1],
    token2: Token[R2],
    token3: Token[R3],
    token4: Token[R4],
    /,
    *,
    return_exceptions: Literal[True],
) -> Gathering[
    tuple[
        R1 | BaseException,
        R2 | BaseException,
        R3 | BaseException,
        R4 | BaseException,
    ]
]: ...
@overload
def gather(
    token1: Token[R1],
    token2: Token[R2],
    token3: Token[R3],
    token4: Token[R4],
    token5: Token[R5],
    /,
    *,
    return_exceptions: Literal[True],
) -> Gathering[
    tuple[
        R1 | BaseException,
        R2 | BaseException,
        R3 | BaseException,
        R4 | BaseException,
        R5 | BaseException,
    ]
]: ...
@overload
def gather(
    *tokens: Token[R], return_exceptions: Literal[True]
) -> Gathering[list[R | BaseException]]: ...
def gather(*tokens: Token[Any], return_exceptions: bool = False) -> Gathering[Any]:
    """Wait for several tokens at once.

    ``await gather(...)``, or off any loop ``gather(...).result()``, gives the list of results in
    the order of the tokens. The first failure, in time, is raised at once and the others go on, as
    with `asyncio.gather`; with return_exceptions the exceptions take the place of results.
    Cancelling the awaiter cancels the tokens. TypeError for anything that is not a token.
    """
    return Gathering(_checked(tokens, "gather"), return_exceptions)


def as_completed(tokens: Iterable[Token[R]]) -> AsCompleted[R]:
    """Iterate tokens in the order they end: ``async for`` on a loop, ``for`` off any loop.

    Yields the ended tokens themselves; ask each for its `result()`.
    """
    return AsCompleted(_checked(tokens, "as_completed"))


def _checked(tokens: Iterable[Any], what: str) -> list[Token[Any]]:
    checked = list(tokens)
    for token in checked:
        if not isinstance(token, Token):
            raise TypeError(f"{what}() takes tokens, got {token!r}")
    return checked


class Gathering(Generic[ResultsT_co]):
    """What `gather` returns."""

    def __init__(self, tokens: list[Token[Any]], return_exceptions: bool) -> None:
        self._tokens = tokens
        self._return_exceptions = return_exceptions

    def __await__(self) -> Generator[Any, None, ResultsT_co]:
        """The results, in the order of the tokens."""
        _core.require_loop("a gathering")
        return self._gather().__await__()

    async def _gather(self) -> ResultsT_co:
        inbox = _Inbox(self._tokens, True)
        while inbox.pending:
            try:
                await inbox.wait(self._want())
            except asyncio.CancelledError:
                for token in self._tokens:
                    token.cancel()
                raise
            self._check(inbox)
        return self._outcomes()

    def result(self, timeout: float | None = None) -> ResultsT_co:
        """Block until all have ended.

        RuntimeError on a running loop; TimeoutError after `timeout` seconds, the tokens going on.
        """
        _off_loop("result()", "await the gathering")
        inbox = _Inbox(self._tokens, False)
        deadline = None if timeout is None else monotonic() + timeout
        while inbox.pending:
            if not inbox.wait_blocking(self._want(), deadline):
                left = sum(not token.done() for token in self._tokens)
                raise TimeoutError(
                    f"{left} of {len(self._tokens)} tokens have not ended after {timeout} s"
                )
            self._check(inbox)
        return self._outcomes()

    def _outcomes(self) -> ResultsT_co:
        try:
            return cast("ResultsT_co", _core.outcomes(self._tokens, self._return_exceptions))
        except BaseException:
            for token in self._tokens:
                token.forgive()  # one failure is raised; all have been waited for
            raise

    def _want(self) -> int:
        # a failure must be raised when it happens, so look whenever something has ended
        return len(self._tokens) + 1 if self._return_exceptions else 1

    def _check(self, inbox: _Inbox) -> None:
        ended = inbox.take()
        if not self._return_exceptions:
            try:
                _core.raise_first_failure(ended)
            except BaseException:
                # only the first failure is raised; the others have been waited for
                inbox.forgive(ended)
                raise


class AsCompleted(Generic[R_co]):
    """What `as_completed` returns: one consumer, once."""

    def __init__(self, tokens: list[Token[R_co]]) -> None:
        self._tokens = list(dict.fromkeys(tokens))  # each is yielded once, however often named
        self._inbox: _Inbox | None = None
        self._ready: deque[Token[R_co]] = deque()
        self._turn: asyncio.Lock | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    def __aiter__(self) -> Self:
        _core.require_loop("as_completed()")
        self._inbox = self._inbox or _Inbox(self._tokens, True)
        if self._turn is None:
            self._turn = asyncio.Lock()  # tasks that share one take turns
        return self

    async def __anext__(self) -> Token[R_co]:
        assert self._inbox is not None
        assert self._turn is not None
        async with self._turn:
            while not self._ready:
                pending = self._inbox.pending  # before the look: some may end in between
                self._ready.extend(self._inbox.take())
                if not self._ready:
                    if not pending:
                        raise StopAsyncIteration
                    await self._inbox.wait(1)
            return self._ready.popleft()

    def __iter__(self) -> Iterator[Token[R_co]]:
        _off_loop("iterating with `for`", "use `async for`")
        self._inbox = self._inbox or _Inbox(self._tokens, False)
        return self

    def __next__(self) -> Token[R_co]:
        assert self._inbox is not None
        while not self._ready:
            pending = self._inbox.pending  # before the look: some may end in between
            self._ready.extend(self._inbox.take())
            if not self._ready:
                if not pending:
                    raise StopIteration
                self._inbox.wait_blocking(1, None)
        return self._ready.popleft()


def _off_loop(what: str, instead: str) -> None:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(f"{what} would block the event loop that runs on this thread: {instead}")


class _Inbox:
    """Collects tokens made elsewhere; each of them once, however often it was named."""

    def __init__(self, tokens: list[Token[Any]], on_loop: bool) -> None:
        self._collector = _core.Collector(on_loop)
        for token in dict.fromkeys(tokens):
            self._collector.attach(token)

    @property
    def pending(self) -> int:
        return self._collector.pending

    def take(self) -> list[Token[Any]]:
        return self._collector.take()

    def forgive(self, ended: list[Token[Any]]) -> None:
        self._collector.forgive()
        for token in ended:
            token.forgive()

    async def wait(self, want: int) -> None:
        await wait_on_loop(self._collector, want)

    def wait_blocking(self, want: int, deadline: float | None) -> bool:
        return wait_on_thread(self._collector, want, deadline)
