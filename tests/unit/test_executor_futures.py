"""Many futures at once: `wait`, `as_completed`, callbacks, and what `asyncio.wrap_future` makes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Executor

if TYPE_CHECKING:
    from tests.conftest import Gate, NewGate

TIMEOUT = 20.0


def fail() -> None:
    raise LookupError("on purpose")


@pytest.fixture(params=["off a loop", "on a loop"])
def submit(
    request: pytest.FixtureRequest, coordinator: Coordinator
) -> Iterator[Callable[..., Any]]:
    """Submits; each test runs with plain futures and with those that asyncio takes as well."""
    executor = Executor()
    if request.param == "off a loop":
        yield executor.submit
        return

    async def made(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return executor.submit(fn, *args)

    loop = asyncio.new_event_loop()
    yield lambda fn, *args: loop.run_until_complete(made(fn, args))
    loop.close()


def test_wait_for_all(submit: Callable[..., Any], gate: Gate) -> None:
    futures = [submit(gate, n) for n in range(3)]
    standard: Future[int] = Future()
    standard.set_result(7)
    done, pending = concurrent.futures.wait([*futures, standard], timeout=0)
    assert (done, pending) == ({standard}, set(futures))
    gate.open()
    done, pending = concurrent.futures.wait([*futures, standard], TIMEOUT, ALL_COMPLETED)
    assert done == {standard, *futures}
    assert not pending
    assert sorted(each.result() for each in done) == [0, 1, 2, 7]


def test_wait_for_the_first(submit: Callable[..., Any], new_gate: NewGate) -> None:
    first, second = new_gate(), new_gate()
    one, two = submit(first), submit(second)
    threading.Timer(0.01, first.open).start()
    done, pending = concurrent.futures.wait([one, two], TIMEOUT, FIRST_COMPLETED)
    assert (done, pending) == ({one}, {two})
    second.open()
    assert concurrent.futures.wait([two], TIMEOUT).done == {two}


def test_wait_for_the_first_failure(submit: Callable[..., Any], gate: Gate) -> None:
    good, held, bad = submit(int), submit(gate), submit(fail)
    done, pending = concurrent.futures.wait([good, held, bad], TIMEOUT, FIRST_EXCEPTION)
    assert bad in done
    assert pending == {held}
    assert isinstance(bad.exception(), LookupError)
    gate.open()
    concurrent.futures.wait([good, held], TIMEOUT)


def test_wait_sees_a_cancel(submit: Callable[..., Any], coordinator: Coordinator) -> None:
    coordinator.pause()
    futures = [submit(int) for _ in range(5)]
    threading.Timer(0.01, lambda: [each.cancel() for each in futures]).start()
    done, _ = concurrent.futures.wait(futures, TIMEOUT)
    assert done == set(futures)
    assert all(each.cancelled() for each in futures)
    coordinator.resume()


def test_as_completed(submit: Callable[..., Any], new_gate: NewGate) -> None:
    gates = [new_gate() for _ in range(3)]
    futures = [submit(gate, n) for n, gate in enumerate(gates)]
    completed = concurrent.futures.as_completed([*futures, futures[0]], TIMEOUT)
    order = []
    for n in (1, 2, 0):
        gates[n].open()
        order.append(next(completed).result())
    assert order == [1, 2, 0]
    assert next(completed, None) is None


def test_as_completed_times_out(submit: Callable[..., Any], gate: Gate) -> None:
    future = submit(gate)
    with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
        list(concurrent.futures.as_completed([future], timeout=0))
    gate.open()
    concurrent.futures.wait([future], TIMEOUT)


def test_the_books_stand_still_while_they_are_read(coordinator: Coordinator, gate: Gate) -> None:
    """`wait` counts what is pending under the futures' conditions, some time after it has looked
    first: a future that ended in between would be counted as told, and then be told."""
    future = Executor().submit(gate)
    gate.wait_entered()
    condition = future._condition
    with condition:
        assert future._state == "RUNNING"
        gate.open()
        assert future.result(TIMEOUT) is None  # it has ended ...
        assert future._state == "RUNNING"  # ... and who holds the condition will be told
    with condition:
        condition.wait_for(lambda: future._state == "FINISHED", TIMEOUT)
    assert future._state == "FINISHED"


# -- callbacks --------------------------------------------------------------------------------


def test_callbacks_in_order(coordinator: Coordinator, gate: Gate) -> None:
    future = Executor().submit(gate, 5)
    called: list[Any] = []
    all_called = threading.Event()
    for n in range(5):
        future.add_done_callback(lambda each, n=n: called.append((n, each.result())))  # type: ignore[misc]
    future.add_done_callback(lambda _: all_called.set())
    assert not called
    gate.open()
    assert all_called.wait(TIMEOUT)
    assert called == [(n, 5) for n in range(5)]
    future.add_done_callback(lambda _: called.append("late"))
    assert called[-1] == "late"  # here and now


@contextlib.contextmanager
def logged_by_the_standard_library() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("concurrent.futures")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises(
    coordinator: Coordinator, gate: Gate, error: type[BaseException]
) -> None:
    """It is logged; other callbacks, who waits, and the worker do not suffer."""
    executor = Executor()
    called = threading.Event()

    def bad(_: Any) -> None:
        raise error("on purpose")

    with logged_by_the_standard_library() as records:
        future = executor.submit(gate)
        future.add_done_callback(bad)
        future.add_done_callback(lambda _: called.set())
        gate.open()
        assert future.result(TIMEOUT) is None
        assert called.wait(TIMEOUT)
        executor.shutdown()
    assert ["exception calling callback" in each.getMessage() for each in records] == [True]
    assert records[0].exc_info
    assert records[0].exc_info[0] is error


def test_a_callback_that_raises_where_one_cancels(coordinator: Coordinator) -> None:
    """What is no Exception is for the caller whose thread it is, after the other callbacks."""
    coordinator.pause()
    future = Executor().submit(int)
    called = []

    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    future.add_done_callback(interrupted)
    future.add_done_callback(called.append)
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert called == [future]
    assert future.cancelled()
    coordinator.resume()


def test_submit_from_a_callback(single: Coordinator) -> None:
    executor = Executor()
    more: list[Future[int]] = []
    ready = threading.Event()

    def again(_: Any) -> None:
        more.append(executor.submit(int, "7"))
        ready.set()

    executor.submit(int).add_done_callback(again)
    assert ready.wait(TIMEOUT)
    assert more[0].result(TIMEOUT) == 7


# -- asyncio ----------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["result", "error", "cancel"])
async def test_wrap_future(coordinator: Coordinator, gate: Gate, outcome: str) -> None:
    executor = Executor()
    coordinator.pause()
    plain: list[Any] = []
    maker = threading.Thread(
        target=lambda: plain.append(executor.submit(fail if outcome == "error" else int, *[]))
    )
    maker.start()
    maker.join()
    wrapped = asyncio.wrap_future(plain[0])
    assert wrapped is not plain[0]
    if outcome == "cancel":
        plain[0].cancel()
    coordinator.resume()
    ended = await asyncio.wait_for(asyncio.gather(wrapped, return_exceptions=True), TIMEOUT)
    assert [type(each) for each in ended] == [
        {"result": int, "error": LookupError, "cancel": asyncio.CancelledError}[outcome]
    ]


async def test_cancelling_a_wrapped_future(coordinator: Coordinator) -> None:
    coordinator.pause()
    executor = Executor()
    plain: list[Any] = []
    maker = threading.Thread(target=lambda: plain.append(executor.submit(int)))
    maker.start()
    maker.join()
    wrapped = asyncio.wrap_future(plain[0])
    wrapped.cancel()
    done, _ = await asyncio.to_thread(concurrent.futures.wait, plain, TIMEOUT)
    assert done == set(plain)
    assert plain[0].cancelled()
    coordinator.resume()
