"""The running interpreter's own tests of asyncio, with tokens where they make futures or sleep.

A case passes only if it had a token in hand; one that makes no awaitable of its own is skipped.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

if TYPE_CHECKING:
    from tests.conformance import settable, support
else:
    import conformance_settable as settable
    import conformance_support as support

# Where the interpreter's tests take or make awaitables. Of the variants that differ only in whose
# Future they make, one each is run: for asyncio's compiled tasks and for those in Python.
CASES = {
    "test_tasks": (
        "CTask_CFuture_Tests",
        "PyTask_PyFuture_Tests",
        "FutureGatherTests",
        "CoroutineGatherTests",
        "RunCoroutineThreadsafeTests",
    ),
    "test_waitfor": ("AsyncioWaitForTest", "WaitForShieldTests"),
    "test_timeouts": ("TimeoutTests",),
    "test_taskgroups": ("TestTaskGroup", "TestEagerTaskTaskGroup"),
    "test_staggered": ("StaggeredTests",),
    "test_eager_task_factory": ("PyEagerTaskFactoryLoopTests", "CEagerTaskFactoryLoopTests"),
    "test_futures": ("CFutureTests", "CFutureDoneCallbackTests"),
}

# Those that count turns or ask for a future's state: with tokens that wait, and once more with tokens
# that execute, whose cancel, say, goes another way.
ALSO_EXECUTING = {
    "CTask_CFuture_Tests",
    "FutureGatherTests",
    "CoroutineGatherTests",
    "AsyncioWaitForTest",
    "CFutureTests",
    "CFutureDoneCallbackTests",
}

_MADE_BY_CALLS = "how futures are made; tokens are made by calling a guarded function"
_REPORTS_IN_ITS_OWN_WORDS = "reported as 'token 2 of op: exception was never retrieved'"
_EXITED = "ends as FunctionExited, on every version: it must not act on the awaiter's loop"
_NO_SOURCE_TRACEBACK = (
    "a token keeps no traceback of its creation in debug mode: asking each call's loop for its mode "
    "would cost every call; `token.caller` names the task"
)

# Left out, and why. "module.Class.test", where it is written down.
LEFT_OUT = {
    "test_tasks.BaseTaskTests.test_log_destroyed_pending_task": (
        "turns the loop by _run_once() alone, where no loop runs, and expects its future to be all "
        "that holds a task: a token that has not ended is held by its queue, and so are its waiters"
    ),
    "test_tasks.BaseTaskTests.test_other_loop_future": (
        "a RuntimeError here too, raised by `await` itself: in words of its own"
    ),
    "test_futures.BaseFutureTests.test_constructor_use_global_loop": _MADE_BY_CALLS,
    "test_futures.BaseFutureTests.test_constructor_use_running_loop": _MADE_BY_CALLS,
    "test_futures.BaseFutureTests.test_constructor_without_loop": _MADE_BY_CALLS,
    "test_futures.BaseFutureTests.test_constructor_positional": _MADE_BY_CALLS,
    "test_futures.BaseFutureTests.test_uninitialized": _MADE_BY_CALLS,
    "test_futures.BaseFutureTests.test_future_cancel_message_setter": (
        "_cancel_message is read-only: asyncio sets it on futures of its own making only"
    ),
    "test_futures.BaseFutureTests.test_future_exception_never_retrieved": _REPORTS_IN_ITS_OWN_WORDS,
    "test_futures.BaseFutureTests.test_future_exception_never_retrieved_debug": (
        _REPORTS_IN_ITS_OWN_WORDS
    ),
    "test_futures.BaseFutureTests.test_future_repr": "a token's repr tells its operation and state",
    "test_futures.BaseFutureTests.test_future_source_traceback": _NO_SOURCE_TRACEBACK,
    "test_futures.BaseFutureTests.test_iter": (
        "iterates where no loop runs, which a token refuses before anything is blocked"
    ),
    "test_futures.BaseFutureTests.test_yield_from_twice": (
        "iterates where no loop runs, which a token refuses before anything is blocked"
    ),
    "test_futures.BaseFutureTests.test_log_traceback": "_log_traceback is private to Future",
    "test_futures.BaseFutureTests.test_stop_iteration_exception": _EXITED,
    "test_futures.BaseFutureTests.test_stop_iteration_subclass_exception": _EXITED,
    "test_futures.CFutureTests.test_future_del_segfault": (
        "deletes _log_traceback, which is private to Future; _asyncio_future_blocking of a token "
        "cannot be deleted either, with an error of another type"
    ),
}


# Left out of those with tokens that execute alone.
LEFT_OUT_EXECUTING = {
    "test_tasks.BaseTaskTests.test_context_3": "a hundred at once, more than there are workers",
}

# Test cases, and left out tests, that some versions lack.
NOT_EVERYWHERE = {
    "TestEagerTaskTaskGroup",  # 3.14
    "WaitForShieldTests",  # 3.12
    "test_futures.BaseFutureTests.test_stop_iteration_exception",  # 3.12
    "test_futures.BaseFutureTests.test_stop_iteration_subclass_exception",  # 3.13
}


@pytest.fixture(scope="module", autouse=True)
def collect_garbage() -> Iterator[None]:
    """Some cases leave failed tasks in cycles, which are reported with their tracebacks when they are
    collected. Python 3.11 fails to parse anything else in whose middle that happens.

    Others collect a hundred times: what all the tests before have made and imported is left out of it.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.collect()


class WithTokens:
    """Mixed into a test case: its futures are tokens."""

    _kind: ClassVar[type[settable.Settable]]
    _settable: settable.Settable
    left_out: ClassVar[set[str]]

    def run(self, result: Any = None) -> Any:
        self._settable = self._kind()
        try:
            with self._settable.installed():
                return super().run(result)  # type: ignore[misc]
        finally:
            self._settable.close()

    def _callTestMethod(self, method: Any) -> None:  # noqa: N802 - unittest's name
        super()._callTestMethod(method)  # type: ignore[misc]
        if not self._settable.made:
            self.skipTest(support.UNTOUCHED)  # type: ignore[attr-defined]


class WithTokensForFutures(WithTokens):
    """The same for test cases that make futures by a method of their own."""

    def new_future(self, loop: asyncio.AbstractEventLoop) -> Any:
        frame = sys._getframe(1)
        if settable.wanted(frame):
            return self._settable.make(loop)
        return super().new_future(loop)  # type: ignore[misc]

    def _new_future(self, *, loop: asyncio.AbstractEventLoop | None = None) -> Any:
        return self._settable.make(loop or self.loop)  # type: ignore[attr-defined]


def take_over(module: str, name: str, kind: type[settable.Settable]) -> Any:
    """The interpreter's test case with tokens, or None where it has none of that name."""
    found = support.stdlib_tests("test.test_asyncio", module)
    case = getattr(found, name, None)
    if case is None:
        return None
    mixin = WithTokensForFutures if module in {"test_tasks", "test_futures"} else WithTokens
    made: Any = type(
        f"{name}_of_{kind.__name__}", (mixin, case), {"__module__": __name__, "_kind": kind}
    )
    executing = kind is settable.ExecutingTokens
    made.left_out = support.leave_out(made, LEFT_OUT | (LEFT_OUT_EXECUTING if executing else {}))
    return made


TAKEN = {
    (module, name, kind): case
    for kind in (settable.WaitingTokens, settable.ExecutingTokens)
    for module, names in CASES.items()
    for name in names
    if kind is settable.WaitingTokens or name in ALSO_EXECUTING
    if (case := take_over(module, name, kind)) is not None
}
globals().update({case.__name__: case for case in TAKEN.values()})


@pytest.mark.parametrize("module", CASES)
def test_they_are_found(module: str) -> None:
    found = support.stdlib_tests("test.test_asyncio", module)
    if found is None:
        pytest.skip(f"Python {support.VERSION} comes without test.test_asyncio.{module}")
    for name in CASES[module]:
        if name in NOT_EVERYWHERE and not hasattr(found, name):
            continue
        taken = TAKEN.get((module, name, settable.WaitingTokens))
        assert taken is not None, f"{module} has no {name}: what is it called now?"
        assert list(support.tests_of(taken))


@pytest.mark.parametrize("left_out", [*LEFT_OUT, *LEFT_OUT_EXECUTING])
def test_what_is_left_out_exists(left_out: str) -> None:
    module, case, test = left_out.split(".")
    if (found := support.stdlib_tests("test.test_asyncio", module)) is None:
        pytest.skip(f"Python {support.VERSION} comes without test.test_asyncio.{module}")
    if left_out in NOT_EVERYWHERE and not hasattr(getattr(found, case), test):
        return
    assert test in vars(getattr(found, case)), "nothing to leave out: take it off the list"
    assert any(left_out in taken.left_out for taken in TAKEN.values()), "its class is not run"
