"""`.map` and `.starmap`: many calls with one consumer, a bounded number under way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sized,
)
from time import monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from tokengate import _core
from tokengate.waiting import wait_on_loop, wait_on_thread

if TYPE_CHECKING:
    from tokengate.coordinator import Coordinator
    from tokengate.guard import GuardedFunction
    from tokengate.token import Token

__all__ = ["MapCall"]

ItemT_co = TypeVar("ItemT_co", covariant=True)

IN_FLIGHT_ITERATED = 1_024
IN_FLIGHT_AWAITED = 8_192
THREAD_SLICE_NS = 100_000  # off a loop: ended tokens are handed out at least this often
SLICE_NS = 1_000_000  # submitting longer than this in one go would stall the loop
LEAVE_AT_ONCE = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
ALL = 1 << 60  # more ended tokens than there can be: wait until none is pending


class MapCall(Generic[ItemT_co]):
    """What `.map` returns: await it for the list, or iterate it for results as they come.

    One consumer, once. Memory holds at most `in_flight` tokens when iterated.
    """

    def __init__(
        self,
        guard: GuardedFunction[..., Any],
        iterable: Iterable[Any] | AsyncIterable[Any],
        star: bool,
        in_flight: int | None,
        ordered: bool,
        return_exceptions: bool,
        tokens: bool,
        constants: dict[str, Any],
    ) -> None:
        if in_flight is not None and (type(in_flight) is not int or in_flight < 1):
            raise ValueError(f"in_flight={in_flight!r}: expected a whole number of at least 1")
        if not isinstance(iterable, (Iterable, AsyncIterable)) and not hasattr(
            type(iterable), "__getitem__"
        ):
            raise TypeError(f"map() needs an iterable or asynchronous iterable, got {iterable!r}")
        self._guard = guard
        self._iterable = iterable
        self._star = star
        self._in_flight = in_flight
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._tokens = tokens
        self._constants = constants or None
        self._stream: _LoopStream | _ThreadStream | None = None
        self._awaited = False

    def __len__(self) -> int:
        """Number of calls, where the iterable knows its length; TypeError where it does not."""
        if isinstance(self._iterable, Sized):
            return len(self._iterable)
        raise TypeError(f"the length of {type(self._iterable).__name__} is not known beforehand")

    def __bool__(self) -> bool:
        return True  # whatever its length: it is a call, not a collection

    def _window(self, usual: int) -> int:
        if self._in_flight is not None:
            return self._in_flight
        coordinator = cast("Coordinator", self._guard._coordinator)
        return coordinator._window(self._guard.lane) or usual

    def _source(self, window: int, on_loop: bool) -> _Source:
        return _Source(
            self._guard,
            self._iterable,
            self._star,
            self._constants,
            self._tokens,
            window,
            on_loop,
        )

    # -- awaited -------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, list[ItemT_co]]:
        """The list of results (with `tokens`: of finished tokens), in the order of the items."""
        _core.require_loop("a map")
        if self._awaited or self._stream is not None:
            raise RuntimeError("this map has been awaited or iterated already: make a new one")
        self._awaited = True
        return self._gather().__await__()

    async def _gather(self) -> list[Any]:
        source = self._source(self._window(IN_FLIGHT_AWAITED), True)
        results: list[Any] = []
        finished: list[Token[Any]] = []
        collector = source.collector
        try:
            while True:
                await source.fill()
                if self._tokens:
                    finished += collector.take()
                else:
                    collector.store(results, self._return_exceptions)
                if source.exhausted and not collector.held:
                    break
                if source.has_more():
                    await asyncio.sleep(0)  # between two slices of submitting
                else:
                    await source.wait(1)  # not for more: a failure is acted on when it happens
        except LEAVE_AT_ONCE:
            source.abandon()
            raise
        except BaseException:
            await source.close()
            raise
        if self._tokens:
            finished.sort(key=_by_index)
            return finished
        return results

    # -- iterated on a loop --------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[ItemT_co]:
        """Results as they come; with `tokens`, the finished tokens. Iterate it once."""
        return self._on_loop()

    def _on_loop(self) -> _LoopStream:
        _core.require_loop("a map")
        self._refuse_awaited()
        if self._stream is None:
            window = self._window(IN_FLIGHT_ITERATED)
            self._stream = _LoopStream(
                self._source(window, True), self._ordered, self._return_exceptions, self._tokens
            )
        if not isinstance(self._stream, _LoopStream):
            raise RuntimeError("this map is being iterated off the loop already")
        return self._stream

    def _refuse_awaited(self) -> None:
        if self._awaited:
            raise RuntimeError("this map has been awaited already: make a new one")

    async def __aenter__(self) -> Self:
        """Leaving the block cancels what has not started and waits for what runs."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what has not started, wait for what runs; nothing is left afterwards."""
        if isinstance(self._stream, _LoopStream):
            await self._stream.aclose()

    # -- iterated off the loop -----------------------------------------------------------------

    def __iter__(self) -> Iterator[ItemT_co]:
        """The same on a thread without a running loop; `next` blocks. RuntimeError on a loop."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                "iterating with `for` would block the running event loop: use `async for`, or await"
            )
        if isinstance(self._iterable, AsyncIterable) and not isinstance(self._iterable, Iterable):
            raise TypeError("an asynchronous iterable needs a loop: use `async for`")
        self._refuse_awaited()
        if self._stream is None:
            window = self._window(IN_FLIGHT_ITERATED)
            self._stream = _ThreadStream(
                self._source(window, False), self._ordered, self._return_exceptions, self._tokens
            )
        if not isinstance(self._stream, _ThreadStream):
            raise RuntimeError("this map is being iterated on a loop already")
        return self._stream


def _by_index(token: Token[Any]) -> int:
    index = token.index
    assert index is not None
    return index


class _Source:
    """The submitting side: keeps up to `window` tokens under way."""

    def __init__(
        self,
        guard: GuardedFunction[..., Any],
        iterable: Iterable[Any] | AsyncIterable[Any],
        star: bool,
        constants: dict[str, Any] | None,
        keep: bool,
        window: int,
        on_loop: bool,
    ) -> None:
        self._guard = guard
        self._star = star
        self._constants = constants
        self._keep = keep
        self.window = window
        self.exhausted = False
        self.collector = _core.Collector(on_loop)
        self._sync: Iterator[Any] | None = None
        self._async: AsyncIterator[Any] | None = None
        self._coming: asyncio.Future[Any] | None = None
        # what can do both, another map say, must not block a loop
        if isinstance(iterable, AsyncIterable) and (on_loop or not isinstance(iterable, Iterable)):
            self._async = aiter(iterable)
        else:
            self._sync = iter(iterable)  # or by __getitem__ alone

    def fill_now(self, budget: int) -> bool:
        """Submit from a synchronous iterable until the window is full or `budget` ns have gone.

        False: there was nothing to submit.
        """
        assert self._sync is not None
        room = self.window - self.collector.held + self.collector.full
        if room <= 0 or (self.exhausted and not self.collector.full):
            return False
        before = self.collector.submitted
        self.exhausted = self._submit(self._sync, room, budget)
        return self.collector.submitted > before

    def _submit(self, iterator: Iterator[Any], count: int, budget: int) -> bool:
        return self.collector.submit_many(
            self._guard, iterator, count, self._star, self._constants, self._keep, budget
        )

    async def fill(self) -> None:
        """Submit one slice.

        From an asynchronous iterable: what is there, waiting for the next item only where nothing
        else is left to wait for.
        """
        if self._sync is not None:
            self.fill_now(SLICE_NS)
            return
        while not self.exhausted and self.collector.held < self.window:
            if self._coming is None:
                assert self._async is not None
                self._coming = asyncio.ensure_future(_next_of(self._async))
                await asyncio.sleep(0)
            if not self._coming.done() and self.collector.pending + self.collector.ready_count:
                return
            try:
                item = await asyncio.shield(self._coming)
            except StopAsyncIteration:
                self.exhausted = True
                return
            finally:
                if self._coming.done():
                    self._coming = None
            self._submit(iter((item,)), 1, SLICE_NS)

    def has_more(self) -> bool:
        """True if a synchronous iterable may have items for which window and queue have room."""
        return (
            self._sync is not None
            and not self.exhausted
            and not self.collector.full
            and self.collector.held < self.window
        )

    async def wait(self, want: int) -> None:
        """Until `want` ended tokens are ready, none is pending, or the next item has come."""
        await wait_on_loop(self.collector, want, self._coming)

    def cancel(self) -> None:
        """Cancel what has not ended."""
        self.exhausted = True
        # those first: each run that is abandoned frees a place, and one of them would start in it
        self.collector.cancel_unstarted()
        for token in self.collector.unfinished():
            token.cancel()

    def abandon(self) -> None:
        """Cancel everything, also what runs, and wait for nothing."""
        self.exhausted = True
        if self._coming is not None:
            self._coming.add_done_callback(_let_go)
            self._coming.cancel()
            self._coming = None
        if isinstance(self._sync, _ThreadStream):
            self._sync.abandon()
        if isinstance(self._async, _LoopStream):
            self._async.abandon()
        self.cancel()
        self.collector.discard()

    async def close(self) -> None:
        """Cancel what has not started and wait until the functions that run have returned."""
        self.exhausted = True
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])
            if not self._coming.cancelled():
                self._coming.exception()
            self._coming = None
        self.collector.cancel_unstarted()
        aclose = getattr(self._async, "aclose", None)
        if aclose is not None:
            await aclose()  # a map it takes from, or an asynchronous generator
        try:
            while self.collector.pending:
                await wait_on_loop(self.collector, ALL)
        finally:
            self.cancel()  # only where this wait was itself cancelled is anything left
            self.collector.discard()

    def close_blocking(self) -> None:
        """`close` for a plain thread."""
        self.exhausted = True
        self.collector.cancel_unstarted()
        if isinstance(self._sync, _ThreadStream):
            self._sync.close()  # a map it takes from
        try:
            while self.collector.pending:
                wait_on_thread(self.collector, ALL)
        finally:
            self.cancel()  # only where this wait was interrupted is anything left
            self.collector.discard()


def _let_go(coming: asyncio.Future[Any]) -> None:
    # nobody waits for the item any more, nor for what fails on the way to it
    if not coming.cancelled():
        coming.exception()


async def _next_of(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator)


class _Stream:
    """The consuming side: which token comes next, and what of it is handed out."""

    def __init__(
        self, source: _Source, ordered: bool, return_exceptions: bool, tokens: bool
    ) -> None:
        self._source = source
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._tokens = tokens
        self._place = 0
        self._ready: list[Token[Any]] = []
        self._closed = False

    def _take(self) -> Token[Any] | None:
        """The next ended token, or None where it has to be waited for."""
        collector = self._source.collector
        if self._ordered:
            # first, so that one that ends after this look is seen by the wait that follows
            collector.forget_ready()
            token = collector.take_place(self._place)
            if token is not None:
                self._place += 1
            return token
        if not self._ready:
            self._ready = collector.take()
            self._ready.reverse()
        return self._ready.pop() if self._ready else None

    def abandon(self) -> None:
        """The consumer is told to go now: cancel everything, wait for nothing."""
        self._close_ready()
        self._source.abandon()

    def _close_ready(self) -> None:
        self._closed = True
        for token in self._ready:
            token.forgive()

    def _finished(self) -> bool:
        return self._source.exhausted and not self._source.collector.held

    def _hand_out(self, token: Token[Any]) -> Any:
        if self._tokens:
            return token
        return _core.outcomes((token,), self._return_exceptions)[0]


class _LoopStream(_Stream):
    """Iterated with ``async for``; tasks that share one take turns."""

    def __init__(
        self, source: _Source, ordered: bool, return_exceptions: bool, tokens: bool
    ) -> None:
        super().__init__(source, ordered, return_exceptions, tokens)
        self._turn = asyncio.Lock()
        # until when what is ready goes out without a turn for the loop's other tasks
        self._until = monotonic_ns() + SLICE_NS

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        async with self._turn:
            return await self._next()

    async def _next(self) -> Any:
        try:
            while not self._closed:
                if monotonic_ns() > self._until:
                    # workers may well be ahead for good, and then nothing below would ever wait
                    await asyncio.sleep(0)
                    self._until = monotonic_ns() + SLICE_NS
                token = self._take()
                if token is None:
                    await self._source.fill()
                    token = self._take()
                if token is not None:
                    return self._hand_out(token)
                if self._finished():
                    break
                if self._source.has_more():
                    await asyncio.sleep(0)  # between two slices of submitting
                else:
                    await self._source.wait(1)
                self._until = monotonic_ns() + SLICE_NS
        except LEAVE_AT_ONCE:
            self.abandon()
            raise
        except BaseException:
            await self.aclose()
            raise
        self._closed = True
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if not self._closed:
            self._close_ready()
            await self._source.close()


class _ThreadStream(_Stream):
    """Iterated with ``for``, off any loop."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            while not self._closed:
                # what is there goes out before more is asked of the iterable
                token = self._take()
                if token is not None:
                    return self._hand_out(token)
                if self._source.fill_now(THREAD_SLICE_NS):
                    continue
                if self._finished():
                    break
                wait_on_thread(self._source.collector, 1)
        except LEAVE_AT_ONCE:
            self.abandon()
            raise
        except BaseException:
            self.close()
            raise
        self._closed = True
        raise StopIteration

    def close(self) -> None:
        """Cancel what has not started, wait for what runs."""
        if not self._closed:
            self._close_ready()
            self._source.close_blocking()

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # by default argument: at interpreter exit this module's globals may be gone
        if not finalizing() and not getattr(self, "_closed", True):
            self.abandon()
