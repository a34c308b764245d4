"""`Executor`: what it is made of, submit, map, and its futures as those of a thread pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import functools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Executor, LaneUnavailable, TokenDeadlock, get_coordinator

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0


def double(n: int) -> int:
    return 2 * n


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def test_it_is_a_thread_pool_executor_in_kind(coordinator: Coordinator) -> None:
    executor = Executor()
    assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)
    future = executor.submit(double, 21)
    assert isinstance(future, concurrent.futures.Future)
    assert not asyncio.isfuture(future)
    assert future.result(TIMEOUT) == 42
    assert executor.coordinator is coordinator
    assert "Executor on <Coordinator" in repr(executor)
    assert "ExecutorFuture" in repr(future)


def test_arguments_arrive(coordinator: Coordinator) -> None:
    executor = Executor()
    assert executor.submit(echo, 1, fn=2, self=3).result(TIMEOUT) == ((1,), {"fn": 2, "self": 3})
    with pytest.raises(TypeError):
        executor.submit()  # type: ignore[call-arg]


def test_what_cannot_be_called_fails_its_future(coordinator: Coordinator) -> None:
    nothing: Any = None
    assert isinstance(Executor().submit(nothing).exception(TIMEOUT), TypeError)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"max_workers": 0}, ValueError, "max_workers=0: max_workers must be greater than 0"),
        ({"max_workers": -3}, ValueError, "max_workers=-3"),
        ({"max_workers": True}, TypeError, "max_workers=True"),
        ({"max_workers": "4"}, TypeError, "max_workers='4'"),
        ({"max_workers": 2.0}, TypeError, "max_workers=2.0"),
        ({"thread_name_prefix": 7}, TypeError, "thread_name_prefix=7"),
        ({"initializer": print}, TypeError, "initializer=.*shares its coordinator's workers"),
        ({"initargs": (1,)}, TypeError, r"initargs=\(1,\)"),
        ({"coordinator": "default"}, TypeError, "coordinator='default': expected a Coordinator"),
        ({"lane": "cluster"}, LaneUnavailable, "lane='cluster'"),
        ({"lane": 3}, TypeError, "lane=3"),
    ],
)
def test_wrong_arguments(
    coordinator: Coordinator, arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Executor(**arguments)


def test_without_a_coordinator_it_is_the_current_one(new_coordinator: NewCoordinator) -> None:
    assert Executor().coordinator is get_coordinator()
    other = new_coordinator(thread_workers=1)
    executor = Executor(coordinator=other)
    assert executor.submit(double, 2).result(TIMEOUT) == 4
    assert other.stats().totals.completed == 1


def test_made_without_its_constructor() -> None:
    executor = Executor.__new__(Executor)
    with pytest.raises(RuntimeError, match="without its constructor"):
        executor.submit(double, 1)


class Caller:
    def __call__(self) -> str:
        return "called"

    def method(self) -> str:
        return "method"


def test_operations_are_named_after_functions(coordinator: Coordinator) -> None:
    executor = Executor()
    ways: list[Callable[..., Any]] = [
        double,
        functools.partial(functools.partial(double), 1),
        Caller(),
        Caller().method,
        len,
        lambda: None,
    ]
    arguments: list[tuple[Any, ...]] = [(1,), (), (), (), ("abc",), ()]
    for fn, args in zip(ways, arguments, strict=True):
        executor.submit(fn, *args).result(TIMEOUT)
    coordinator.stop()  # a result is there a moment before it is counted
    here = __name__
    assert {name: each.completed for name, each in coordinator.stats().operations.items()} == {
        f"{here}.double": 2,
        f"{here}.Caller": 1,
        f"{here}.Caller.method": 1,
        "builtins.len": 1,
        f"{here}.test_operations_are_named_after_functions.<locals>.<lambda>": 1,
    }


def test_a_prefix_is_the_name_of_all_its_calls(coordinator: Coordinator) -> None:
    executor = Executor(thread_name_prefix="mail")
    assert executor.submit(double, 4).result(TIMEOUT) == 8
    assert executor.submit(len, "abc").result(TIMEOUT) == 3
    assert coordinator.stats().operations["mail"].completed == 2
    second = Executor(2, thread_name_prefix="mail")
    assert second.submit(double, 4).result(TIMEOUT) == 8
    assert coordinator.stats().operations["mail-2"].completed == 1


# -- map --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map(coordinator: Coordinator, chunksize: int) -> None:
    found = Executor(2).map(pow, range(20), [2] * 20, chunksize=chunksize)
    assert list(found) == [n * n for n in range(20)]


def test_map_with_a_timeout_cancels_the_rest(coordinator: Coordinator, gate: Gate) -> None:
    executor = Executor(1)
    executor.submit(gate)
    gate.wait_entered()
    with pytest.raises(TimeoutError):
        next(executor.map(double, range(5), timeout=0))
    gate.open()
    executor.shutdown()
    (figures,) = coordinator.stats().operations.values()
    assert (figures.completed, figures.cancelled) == (1, 5)


def test_map_raises_where_the_function_did(coordinator: Coordinator) -> None:
    found = Executor().map(divmod, [1, 1, 1], [1, 0, 1])
    assert next(found) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(found)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="buffersize is new in Python 3.14")
def test_map_with_a_buffer(coordinator: Coordinator) -> None:
    asked = []

    def numbers() -> Any:
        for n in range(10):
            asked.append(n)
            yield n

    executor = Executor()  # which must live: map asks it for more, and holds it weakly
    found = executor.map(double, numbers(), buffersize=2)  # type: ignore[call-arg,unused-ignore]
    assert asked == [0, 1]
    assert next(found) == 0
    assert asked == [0, 1, 2]
    assert list(found) == [2 * n for n in range(1, 10)]


def test_map_on_a_loops_thread(coordinator: Coordinator) -> None:
    async def main() -> list[int]:
        return list(Executor(2).map(double, range(50), timeout=TIMEOUT))

    assert asyncio.run(main()) == [2 * n for n in range(50)]


# -- one future -------------------------------------------------------------------------------


def test_states(single: Coordinator, gate: Gate) -> None:
    executor = Executor()
    running = executor.submit(gate)
    gate.wait_entered()
    waiting = executor.submit(double, 1)
    assert (running.running(), running.done(), running.cancelled()) == (True, False, False)
    assert (waiting.running(), waiting.done()) == (False, False)
    assert not running.cancel()
    assert waiting.cancel()
    assert waiting.cancel()  # again: it is
    assert waiting.cancelled()
    assert waiting.done()
    for ask in (waiting.result, waiting.exception):
        with pytest.raises(concurrent.futures.CancelledError):
            ask(TIMEOUT)
    with pytest.raises(TimeoutError):
        running.result(0)
    with pytest.raises(TimeoutError):
        running.exception(0.01)
    gate.open()
    assert running.result(TIMEOUT) is None
    assert running.exception() is None
    assert not running.cancel()


def test_nobody_else_sets_its_outcome(coordinator: Coordinator) -> None:
    future = Executor().submit(double, 1)
    for call in (
        future.set_running_or_notify_cancel,
        functools.partial(future.set_result, 1),
        functools.partial(future.set_exception, ValueError()),
    ):
        with pytest.raises(concurrent.futures.InvalidStateError, match="double"):
            call()
    assert future.result(TIMEOUT) == 2


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_neither_pickled_nor_copied(coordinator: Coordinator, way: Callable[[Any], Any]) -> None:
    executor = Executor()
    future = executor.submit(double, 1)
    future.result(TIMEOUT)
    for each in (executor, future):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            way(each)


def test_a_stopped_coordinator_takes_nothing(coordinator: Coordinator) -> None:
    executor = Executor()
    coordinator.stop()
    with pytest.raises(RuntimeError, match="cannot schedule new futures.*is stopped"):
        executor.submit(double, 1)
    coordinator.start()
    assert executor.submit(double, 1).result(TIMEOUT) == 2


def test_what_a_stop_ends_says_so(single: Coordinator, gate: Gate) -> None:
    executor = Executor()
    running = executor.submit(gate)
    gate.wait_entered()
    waiting = executor.submit(double, 1)
    told = []
    waiting.add_done_callback(told.append)
    assert single.discard(f"{__name__}.double") == 1
    assert "discarded" in str(waiting.exception(TIMEOUT))
    assert told == [waiting]
    gate.open()
    assert running.result(TIMEOUT) is None


# -- inside workers ---------------------------------------------------------------------------


def test_nested_calls_need_one_worker(single: Coordinator) -> None:
    executor = Executor()

    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        low, high = executor.submit(fibonacci, n - 2), executor.submit(fibonacci, n - 1)
        return low.result(TIMEOUT) + high.result(TIMEOUT)

    assert executor.submit(fibonacci, 10).result(TIMEOUT) == 55


@pytest.mark.parametrize("way", ["wait", "as_completed", "map"])
def test_waiting_for_many_inside_one_worker(single: Coordinator, way: str) -> None:
    executor = Executor()

    def outer() -> int:
        if way == "map":
            return sum(executor.map(double, range(10)))
        futures = [executor.submit(double, n) for n in range(10)]
        if way == "wait":
            done, _ = concurrent.futures.wait(futures, timeout=TIMEOUT)
        else:
            done = set(concurrent.futures.as_completed(futures, timeout=TIMEOUT))
        return sum(each.result() for each in done)

    assert executor.submit(outer).result(TIMEOUT) == 90
    assert executor.submit(outer).result(TIMEOUT) == 90


def test_a_true_cycle_is_told(coordinator: Coordinator) -> None:
    executor = Executor(1)

    def outer() -> Any:
        inner = executor.submit(double, 1)
        try:
            return inner.result()
        finally:
            inner.cancel()

    with pytest.raises(TokenDeadlock, match="would wait for itself"):
        executor.submit(outer).result(TIMEOUT)


def test_a_worker_blocked_elsewhere_is_woken_before_callbacks(coordinator: Coordinator) -> None:
    """Who blocks in `result` does not wait for the callbacks, which may wait for it."""
    executor = Executor()
    begin, has_result = threading.Event(), threading.Event()
    seen = []
    future = executor.submit(begin.wait, TIMEOUT)
    future.add_done_callback(lambda _: seen.append(has_result.wait(TIMEOUT)))
    waiter = executor.submit(lambda: (future.result(TIMEOUT), has_result.set()))
    begin.set()
    assert waiter.result(TIMEOUT)
    executor.shutdown()
    assert seen == [True]
