"""Tokens that a test ends when it likes, as it would a future: what asyncio's own tests work with.

`set_result` and `set_exception`, which real tokens do not have, say what the token's function shall
do, let it do so, and come back when the loop has been told. All else is as with any token.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import weakref
from asyncio import events
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any
from unittest import mock

from tokengate import Coordinator, Token, _core, current_token, gather, task_token_guard, use
from tokengate.waiting import wait_on_thread

TIMEOUT = 20.0


@contextlib.contextmanager
def running(loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
    """This thread, as if that loop (None: none) ran on it."""
    before = events._get_running_loop()
    events._set_running_loop(loop)
    try:
        yield
    finally:
        events._set_running_loop(before)


class Settable:
    """Makes the tokens of one test case, and ends them."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._told: weakref.WeakKeyDictionary[Token[Any], Told] = weakref.WeakKeyDictionary()
        self.made = 0

    def make(self, loop: asyncio.AbstractEventLoop) -> Token[Any]:
        """A token of that loop, which need not be running yet."""
        self.made += 1
        with running(loop), use(self._coordinator):
            token, told = self._begin()
        self._told[token] = told
        return token

    def _begin(self) -> tuple[Token[Any], Told]:
        raise NotImplementedError

    def _go_on(self, token: Token[Any]) -> None:
        raise NotImplementedError

    def end(self, token: Token[Any], outcome: Callable[[], Any]) -> None:
        """Let the token's function do that."""
        if token.done():
            raise asyncio.InvalidStateError(f"{token!r} has ended")
        with running(None):
            collector = _core.Collector(False)
            collector.attach(token)
            self._told[token].outcome = outcome
            self._go_on(token)
            assert wait_on_thread(collector, 1, monotonic() + TIMEOUT) or token.done()

    def set_result(self, token: Token[Any], result: Any) -> None:
        """`Future.set_result`."""
        self.end(token, lambda: result)

    def set_exception(self, token: Token[Any], error: Any) -> None:
        """`Future.set_exception`."""
        if token.done():
            raise asyncio.InvalidStateError(f"{token!r} has ended")
        if isinstance(error, type):
            error = error()
        # What a future refuses, StopIteration on some versions, this refuses in the same words.
        future: asyncio.Future[Any] = asyncio.Future(loop=token.get_loop())
        future.set_exception(error)
        future.exception()

        def fail() -> Any:
            raise error

        self.end(token, fail)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Tokens have the two methods, and loops give tokens to tests and to `asyncio.sleep`."""
        own = asyncio.BaseEventLoop.create_future

        def create_future(loop: Any) -> Any:
            return self.make(loop) if wanted(sys._getframe(1)) else own(loop)

        with contextlib.ExitStack() as stack:
            for name in ("set_result", "set_exception"):
                method = getattr(self, name)
                stack.enter_context(
                    mock.patch.object(
                        Token, name, lambda token, it, method=method: method(token, it), create=True
                    )
                )
            for name in ("result", "exception"):
                asked = as_on_the_loop(getattr(Token, name))
                stack.enter_context(mock.patch.object(Token, name, asked))
            stack.enter_context(
                mock.patch.object(asyncio.BaseEventLoop, "create_future", create_future)
            )
            stack.enter_context(counted_turns())
            yield

    def close(self) -> None:
        """Ends what is left, and the workers."""
        self._coordinator.stop(TIMEOUT, cancel_waiting=True)


class Told:
    """What a token's function was told to do."""

    def __init__(self) -> None:
        self.outcome: Callable[[], Any] | None = None
        self.told = threading.Event()

    def __call__(self) -> Any:
        assert self.outcome is not None
        return self.outcome()


class WaitingTokens(Settable):
    """Its tokens wait, until they are told, in an operation of their own, which is paused."""

    def __init__(self) -> None:
        # One worker: no function here ever waits. It is started now, since asyncio's test cases
        # count threads.
        super().__init__(Coordinator(thread_workers=1, loop_lag_target=None, name="conformance"))
        self._operations = [f"future {i}" for i in range(500)]  # a coordinator knows a thousand
        self._tokens: weakref.WeakValueDictionary[str, Token[Any]] = weakref.WeakValueDictionary()
        with running(None):
            self._coordinator.submit(len, ()).result(TIMEOUT)

    def _begin(self) -> tuple[Token[Any], Told]:
        name = self._operations[self.made % len(self._operations)]
        before = self._tokens.get(name)
        assert before is None or before.done(), "too many tokens at once"
        told = Told()
        guarded = task_token_guard(operation_type=name)(told)
        self._coordinator.pause(guarded)
        token = self._tokens[name] = guarded()
        return token, told

    def _go_on(self, token: Token[Any]) -> None:
        self._coordinator.resume(token.operation_type)


class ExecutingTokens(Settable):
    """Its tokens execute, each on a worker of its own, until they are told."""

    WORKERS = 16

    def __init__(self) -> None:
        super().__init__(
            Coordinator(thread_workers=self.WORKERS, loop_lag_target=None, name="conformance")
        )
        self._all_told: list[Told] = []
        all_there = threading.Barrier(self.WORKERS)
        with running(None):
            gather(
                *[self._coordinator.submit(all_there.wait, TIMEOUT) for _ in range(self.WORKERS)]
            ).result(TIMEOUT)

    def _begin(self) -> tuple[Token[Any], Told]:
        told, executing = Told(), threading.Event()
        self._all_told.append(told)

        def run() -> Any:
            executing.set()
            here = current_token()
            assert here is not None
            while not told.told.wait(0.005):
                if here.done():
                    return None  # cancelled: the worker is for others
            here = None  # what is raised next keeps this frame, and it the token
            return told()

        token = self._coordinator.submit(run)
        assert executing.wait(TIMEOUT), "no worker is left"
        return token, told

    def _go_on(self, token: Token[Any]) -> None:
        self._told[token].told.set()

    def close(self) -> None:
        for told in self._all_told:
            told.outcome = told.outcome or (lambda: None)
            told.told.set()
        super().close()


def wanted(frame: Any) -> bool:
    """Whether a test asks for a future, or `asyncio.sleep`; to what asyncio makes for itself, the
    outer future of `shield` say, no user's token ever comes."""
    while frame.f_code.co_name == "<lambda>":
        frame = frame.f_back
    module = frame.f_globals["__name__"]
    return module.startswith("test.") or (module, frame.f_code.co_name) == (
        "asyncio.tasks",
        "sleep",
    )


def as_on_the_loop(ask: Callable[[Token[Any]], Any]) -> Callable[[Token[Any]], Any]:
    """asyncio's tests ask futures between two turns of the loop, on its thread; a token would take
    that for a plain thread and block."""

    def asked(token: Token[Any]) -> Any:
        with running(events._get_running_loop() or token.get_loop()):
            return ask(token)

    return asked


@contextlib.contextmanager
def counted_turns() -> Iterator[None]:
    """Loops refuse our reader, as Windows' default loop does, and are woken by `call_soon_threadsafe`.

    asyncio's tests count turns of the loop; and the loop they use most has no selector.
    """
    from test.test_asyncio.utils import TestLoop

    def refuse(own: Any) -> Any:
        def add_reader(loop: Any, fd: Any, callback: Any, *args: Any) -> Any:
            if type(callback) is _core._Listener:
                raise NotImplementedError
            return own(loop, fd, callback, *args)

        return add_reader

    with contextlib.ExitStack() as stack:
        for loop in (TestLoop, asyncio.SelectorEventLoop.__mro__[1]):
            assert "add_reader" in vars(loop)
            stack.enter_context(mock.patch.object(loop, "add_reader", refuse(loop.add_reader)))
        yield
