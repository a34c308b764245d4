"""Tokens that a test ends when it likes, as it would a future: what asyncio's own tests work with.

Each token is the only one of its operation, which is paused; `set_result` and `set_exception`, which
real tokens do not have, say what its function shall do, resume the operation, and come back when the
loop has been told. From then on all is as with any token.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import weakref
from asyncio import events
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from tokengate import Coordinator, Token, _core, task_token_guard, use
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

    def __init__(self) -> None:
        # One worker: no function here ever waits. It is started now, since asyncio's test cases
        # count threads.
        self._coordinator = Coordinator(thread_workers=1, loop_lag_target=None, name="conformance")
        self._told: weakref.WeakKeyDictionary[Token[Any], list[Callable[[], Any]]]
        self._told = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._names = [f"future {i}" for i in range(500)]  # a coordinator knows a thousand
        self._named: weakref.WeakValueDictionary[str, Token[Any]] = weakref.WeakValueDictionary()
        self.made = 0
        with running(None):
            self._coordinator.submit(len, ()).result(TIMEOUT)

    def make(self, loop: asyncio.AbstractEventLoop) -> Token[Any]:
        """A token of that loop, which need not be running yet."""
        told: list[Callable[[], Any]] = []
        name = self._names[self.made % len(self._names)]
        before = self._named.get(name)
        assert before is None or before.done(), "too many tokens at once"
        self.made += 1

        @task_token_guard(operation_type=name)
        def end() -> Any:
            return told[0]()

        with running(loop), use(self._coordinator):
            self._coordinator.pause(end)
            token = self._named[name] = end()
        self._told[token] = told
        return token

    def end(self, token: Token[Any], outcome: Callable[[], Any]) -> None:
        """Let the token's function do that."""
        with self._lock:
            if token.done():
                raise asyncio.InvalidStateError(f"{token!r} has ended")
            with running(None):
                collector = _core.Collector(False)
                collector.attach(token)
                self._told[token].append(outcome)
                self._coordinator.resume(token.operation_type)
                assert wait_on_thread(collector, 1) or token.done()

    def set_result(self, token: Token[Any], result: Any) -> None:
        """`Future.set_result`."""
        self.end(token, lambda: result)

    def set_exception(self, token: Token[Any], error: Any) -> None:
        """`Future.set_exception`."""
        if sys.version_info < (3, 12) and isinstance(error, StopIteration):
            raise TypeError("no future takes it")  # later ones turn it into a RuntimeError

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
        """Ends what is left, and the worker."""
        self._coordinator.stop(TIMEOUT, cancel_waiting=True)


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
