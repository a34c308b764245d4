"""The interpreter's own tests of thread pool executors, run against `tokengate.Executor`.

Not every interpreter brings its tests along (`test.test_concurrent_futures`): where they are missing
all this is skipped, with the reason on display.
"""

from __future__ import annotations

import importlib
import importlib.util
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

from tokengate import Coordinator, Executor, use

PACKAGE = "test.test_concurrent_futures"
THREADS = "an Executor has no threads of its own: it shares its coordinator's workers"
NAMES = "it says ThreadPoolExecutor itself, and looks at its threads"
EXIT = (
    "it makes a class of concurrent.futures by name in another interpreter; exit with calls under "
    "way is the subject of tests/isolated/test_executor_exit.py"
)
NO_POOL = "it tests concurrent.futures.Future, which no executor made"

# `Class.test` -> why it is left out.
LEFT_OUT = {
    "ThreadPoolExecutorTest.test_default_workers": "without max_workers the coordinator decides",
    "ThreadPoolExecutorTest.test_saturation": THREADS,
    "ThreadPoolExecutorTest.test_idle_thread_reuse": THREADS,
    "ThreadPoolExecutorTest.test_hang_global_shutdown_lock": (
        "it says ThreadPoolExecutor itself; forks are the subject of tests/isolated"
    ),
    "ThreadPoolShutdownTest.test_cancel_futures": (
        "it counts on the first call's having started when submit returns; a worker that has to be "
        "started is not waited for (tests/unit/test_executor_shutdown.py has a case of our own)"
    ),
    "ThreadPoolShutdownTest.test_threads_terminate": THREADS,
    "ThreadPoolShutdownTest.test_context_manager_shutdown": NAMES,
    "ThreadPoolShutdownTest.test_del_shutdown": NAMES,
    "ThreadPoolShutdownTest.test_shutdown_no_wait": NAMES,
    "ThreadPoolShutdownTest.test_thread_names_assigned": NAMES,
    "ThreadPoolShutdownTest.test_thread_names_default": NAMES,
    "ThreadPoolShutdownTest.test_interpreter_shutdown": EXIT,
    "ThreadPoolShutdownTest.test_submit_after_interpreter_shutdown": EXIT,
    "ThreadPoolShutdownTest.test_hang_gh83386": EXIT,
    "ThreadPoolShutdownTest.test_cancel_futures_wait_false": EXIT,
}
# Of these only some versions of Python have some.
NOT_EVERYWHERE = {
    "ThreadPoolExecutorTest.test_hang_global_shutdown_lock",
    "ThreadPoolExecutorTest.test_idle_thread_reuse",
}
# Test classes of the package that are not about thread pools, and why.
OTHER_CLASSES = {
    "FutureTests": NO_POOL,
    "ThreadPoolInitializerTest": "initializer is refused: the workers are shared",
    "ThreadPoolFailingInitializerTest": "initializer is refused: the workers are shared",
}


def standard_classes() -> dict[str, type[unittest.TestCase]]:
    """The test classes of the standard library that use a thread pool, by name; none: not here."""
    try:
        found = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        return {}
    names = [PACKAGE]  # one module up to 3.11
    if found.submodule_search_locations:
        names = [
            f"{PACKAGE}.test_{part}"
            for part in ("thread_pool", "wait", "as_completed", "shutdown", "future", "init")
        ]
    classes = {}
    for name in names:
        for each in vars(importlib.import_module(name)).values():
            if isinstance(each, type) and issubclass(each, unittest.TestCase):
                classes[each.__name__] = each
    return {
        name: each
        for name, each in classes.items()
        if name.startswith("ThreadPool") or name in OTHER_CLASSES
    }


def all_cases() -> dict[str, type[unittest.TestCase]]:
    """``Class.test`` of all of them."""
    loader = unittest.TestLoader()
    return {
        f"{name}.{test}": each
        for name, each in standard_classes().items()
        for test in loader.getTestCaseNames(each)
    }


CASES = all_cases()
MISSING = f"this interpreter comes without {PACKAGE}, the tests to be run"
TO_RUN = [
    case for case in CASES if case not in LEFT_OUT and case.partition(".")[0] not in OTHER_CLASSES
]


@pytest.fixture
def conformant(new_coordinator: Any) -> Iterator[Coordinator]:
    """The coordinator that executors of the case run on."""
    fresh = new_coordinator(thread_workers=16)
    with use(fresh):
        yield fresh


@pytest.mark.parametrize("case", TO_RUN or [pytest.param("", marks=pytest.mark.skip(MISSING))])
@pytest.mark.filterwarnings("default")
def test_standard_library(
    case: str, conformant: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the standard library's cases, with `Executor` in place of the thread pool."""
    # Workers stay when an executor goes; that none is left in the end is the fixture's to see.
    from test.support import threading_helper

    monkeypatch.setattr(threading_helper, "threading_cleanup", lambda *_: None)
    standard = CASES[case]
    own = type(standard.__name__, (standard,), {"executor_type": Executor})
    one = own(case.partition(".")[2])
    result = unittest.TestResult()
    one.run(result)
    told = [text for _, text in result.failures + result.errors]
    assert not told, "\n".join(told)
    assert result.testsRun == 1
    for _, reason in result.skipped:
        pytest.skip(reason)


@pytest.mark.skipif(not CASES, reason=MISSING)
def test_what_is_left_out_exists() -> None:
    """Reasons are for cases that there are; and there is something left to run."""
    unknown = set(LEFT_OUT) - set(CASES) - NOT_EVERYWHERE
    assert not unknown
    assert set(OTHER_CLASSES) <= set(standard_classes())
    assert len(TO_RUN) > 25
    assert all(reason for reason in [*LEFT_OUT.values(), *OTHER_CLASSES.values()])


@pytest.mark.skipif(not CASES, reason=MISSING)
def test_the_cases_use_the_executor(
    conformant: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cases do run on tokens: a class of theirs makes an `Executor` of this coordinator."""
    before = conformant.stats().totals.submitted
    test_standard_library("ThreadPoolExecutorTest.test_submit", conformant, monkeypatch)
    assert conformant.stats().totals.submitted == before + 1
