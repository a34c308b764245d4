"""The interpreter's own tests of gather, wait, wait_for, shield, as_completed and timeout, on tokens.

Wherever such a test makes a future of its loop it gets a token here, which it can resolve as it would
the future. Not every interpreter brings its tests along (`test.test_asyncio`): where they are missing
all this is skipped, with the reason on display.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
import threading
import unittest
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from tokengate import Coordinator, Token, _core

PACKAGE = "test.test_asyncio"
MISSING = f"this interpreter comes without {PACKAGE}, the tests to be run"

HELD = "a token that executes is held by its worker, and with it the task that awaits it"
WORDS = "it wants asyncio's words; tests/unit/test_token_loops.py has a case of our own"
NO_FUTURE = "it gathers coroutines, and makes no future"

# `Class.test` -> why it is left out.
LEFT_OUT = {
    "CTask_CFuture_Tests.test_log_destroyed_pending_task": HELD,
    "CTask_CFuture_Tests.test_other_loop_future": WORDS,
    "PyTask_PyFuture_Tests.test_log_destroyed_pending_task": HELD,
    "PyTask_PyFuture_Tests.test_other_loop_future": WORDS,
    "CoroutineGatherTests.test_duplicate_coroutines": NO_FUTURE,
    "CoroutineGatherTests.test_issue46672": NO_FUTURE,
}
# Cases that make no future of their own say nothing about tokens, and are not among those to run.
MAKES_ONE = ("new_future(", "create_future(", "_check_success(", "_gather(")


class Gate:
    """The function of a settable token: it returns, or raises, what the test says, when it does."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def tell(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        self._told.set()

    def __call__(self) -> Any:
        self._told.wait()
        if self._error is not None:
            raise self._error
        return self._value


class SettableToken(Token[Any]):
    """A token that a test resolves like a future. No production code has one."""

    gate: Gate
    loop: Any

    @property
    def _loop(self) -> Any:
        return self.loop

    def set_result(self, value: Any) -> None:
        self._finish(value, None)

    def set_exception(self, error: Any) -> None:
        self._finish(None, error() if isinstance(error, type) else error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if self.done():
            raise asyncio.InvalidStateError("invalid state")
        over = threading.Event()
        waits = self.watch_return(over.set)
        self.gate.tell(value, error)
        assert not waits or over.wait(20)
        self._deliver()

    def cancel(self, msg: Any = None) -> bool:
        cancelled = super().cancel(msg)
        self.gate.tell(None, None)
        self._deliver()
        return cancelled

    def _deliver(self) -> None:
        # The loops of the standard library's tests watch no descriptors: what would come by one comes
        # at the next turn, as from a loop that does.
        for handle in list(getattr(self.loop, "readers", {}).values()):
            self.loop.call_soon(handle._callback, *handle._args)


class Maker:
    """Makes settable tokens in place of futures."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.made: list[SettableToken] = []
        chosen: ContextVar[Any] = ContextVar("conformance")
        self._runtime = _core.Runtime(SettableToken, chosen, coordinator)

    def __call__(self, loop: Any) -> SettableToken:
        gate = Gate()
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(loop)  # a token belongs to the loop that runs when it is made
        try:
            token: Any = _core.submit(
                self._runtime, self.coordinator, "conformance", {}, gate, (), {}
            )
        finally:
            asyncio._set_running_loop(before)
        token.gate, token.loop = gate, loop
        self.made.append(token)
        return token  # type: ignore[no-any-return]

    def close(self) -> None:
        """No function goes on waiting for what a case never said."""
        for token in self.made:
            Token.cancel(token)
            token.gate.tell(None, None)


def standard_classes() -> dict[str, type[unittest.TestCase]]:
    """The test classes of the standard library that take awaitables, by name; none: not here."""
    try:
        found = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        return {}
    wanted = {
        "test_tasks": (
            "CTask_CFuture_Tests",
            "PyTask_PyFuture_Tests",
            "FutureGatherTests",
            "CoroutineGatherTests",
        ),
        "test_waitfor": ("AsyncioWaitForTest", "WaitForShieldTests"),
        "test_timeouts": ("TimeoutTests",),
        "test_taskgroups": ("TestTaskGroup",),
    }
    classes = {}
    for module, names in wanted.items():
        if importlib.util.find_spec(f"{PACKAGE}.{module}") is not None:
            for name in names:
                each = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name, None)
                if each is not None:
                    classes[name] = each
    return classes


def all_cases() -> dict[str, type[unittest.TestCase]]:
    """``Class.test`` of those that make a future of their own."""
    loader = unittest.TestLoader()
    return {
        f"{name}.{test}": each
        for name, each in standard_classes().items()
        for test in loader.getTestCaseNames(each)
        if any(word in inspect.getsource(getattr(each, test)) for word in MAKES_ONE)
    }


CASES = all_cases()
TO_RUN = [case for case in CASES if case not in LEFT_OUT]


@pytest.fixture
def maker(new_coordinator: Any) -> Iterator[Maker]:
    made = Maker(new_coordinator(thread_workers=32))
    yield made
    made.close()


def run_case(case: str, maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the standard library's cases, with tokens in place of futures."""
    name, _, test = case.partition(".")
    standard = CASES[case]
    real = asyncio.BaseEventLoop.create_future

    def create_future(loop: Any) -> Any:
        # asyncio goes on making futures for its own use
        caller = sys._getframe(1).f_globals["__name__"]
        return maker(loop) if caller.startswith(PACKAGE) else real(loop)

    def set_up(self: Any) -> None:
        super(own, self).setUp()
        if hasattr(self, "loop"):
            vars(self.loop).pop(
                "create_future", None
            )  # its own way of making the kind to be tested

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_future", create_future)
    own = type(name, (standard,), {"new_future": lambda _, loop: maker(loop), "setUp": set_up})
    result = unittest.TestResult()
    own(test).run(result)
    maker.close()
    told = [text for _, text in result.failures + result.errors]
    assert not told, "\n".join(told)
    assert result.testsRun == 1
    for _, reason in result.skipped:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def workers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """That no worker is left in the end is our own fixture's to see, not the case's."""
    if CASES:
        from test.support import threading_helper

        monkeypatch.setattr(threading_helper, "threading_cleanup", lambda *_: None)


@pytest.mark.parametrize("case", TO_RUN or [pytest.param("", marks=pytest.mark.skip(MISSING))])
@pytest.mark.filterwarnings("default")
def test_standard_library(case: str, maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case passes, and it did make a token."""
    run_case(case, maker, monkeypatch)
    assert maker.made, "the case made no token: it says nothing"


@pytest.mark.skipif(not CASES, reason=MISSING)
def test_what_is_left_out_exists() -> None:
    """Reasons are for cases that there are; and there is something left to run."""
    assert not set(LEFT_OUT) - set(CASES)
    assert len(TO_RUN) > 50
    assert all(LEFT_OUT.values())


@pytest.mark.skipif(not CASES, reason=MISSING)
def test_a_case_that_must_fail_does(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out for its words alone: run all the same it fails, so the others can."""
    with pytest.raises(AssertionError, match="belongs to another event loop"):
        run_case("CTask_CFuture_Tests.test_other_loop_future", maker, monkeypatch)
