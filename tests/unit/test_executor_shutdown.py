"""`Executor.shutdown`: from anywhere, any number of times, and never before the functions are out."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Executor

if TYPE_CHECKING:
    from tests.conftest import Gate

TIMEOUT = 20.0


def test_it_takes_no_more(coordinator: Coordinator) -> None:
    executor = Executor()
    future = executor.submit(int)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(int, ["1"])
    executor.shutdown()  # again
    assert "shut down" in repr(executor)
    assert Executor().submit(int).result(TIMEOUT) == 0  # the coordinator goes on


def test_it_waits_for_functions(coordinator: Coordinator, gate: Gate) -> None:
    with Executor() as executor:
        future = executor.submit(gate)
        gate.wait_entered()
        threading.Timer(0.05, gate.open).start()
    assert future.done()
    assert gate.inside == 0


def test_it_waits_for_abandoned_functions(coordinator: Coordinator, gate: Gate) -> None:
    executor = Executor()

    async def main() -> None:
        future = executor.submit(gate)
        await gate.entered()
        assert future.cancel()  # on a loop even while it runs

    asyncio.run(main())
    assert gate.inside == 1
    threading.Timer(0.05, gate.open).start()
    executor.shutdown()
    assert gate.inside == 0


def test_it_waits_for_callbacks(coordinator: Coordinator, gate: Gate) -> None:
    calls: list[Any] = []
    pause = threading.Event()

    def slow(future: Any) -> None:
        pause.wait(0.05)
        calls.append(future)

    with Executor() as executor:
        future = executor.submit(gate)
        future.add_done_callback(slow)
        gate.open()
    assert calls == [future]


def test_without_waiting(coordinator: Coordinator, gate: Gate) -> None:
    executor = Executor()
    futures = [executor.submit(gate, n) for n in range(10)]
    executor.shutdown(wait=False)
    assert not any(each.done() for each in futures)
    gate.open()
    assert [each.result(TIMEOUT) for each in futures] == list(range(10))


@pytest.mark.parametrize("wait", [True, False])
def test_cancel_futures(single: Coordinator, gate: Gate, wait: bool) -> None:
    executor = Executor()
    running = executor.submit(gate, "ran")
    gate.wait_entered()
    waiting = [executor.submit(gate) for _ in range(20)]
    threading.Timer(0.05, gate.open).start()
    executor.shutdown(wait, cancel_futures=True)
    assert all(each.cancelled() for each in waiting)
    assert running.result(TIMEOUT) == "ran"
    assert gate.calls == 1


def test_inside_its_own_function(coordinator: Coordinator) -> None:
    executor = Executor()
    with pytest.raises(RuntimeError, match="would wait for that function to return"):
        executor.submit(executor.shutdown).result(TIMEOUT)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)
    other = Executor()
    other.submit(other.shutdown, False).result(TIMEOUT)
    with pytest.raises(RuntimeError, match="after shutdown"):
        other.submit(int)


def test_inside_anothers_function(single: Coordinator) -> None:
    """The only worker is needed by what is waited for."""
    executor, other = Executor(), Executor()

    def close() -> list[int]:
        futures = [other.submit(int, str(n)) for n in range(5)]
        other.shutdown()
        return [each.result(0) for each in futures]

    assert executor.submit(close).result(TIMEOUT) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("started", [True, False])
def test_inside_a_callback(coordinator: Coordinator, gate: Gate, started: bool) -> None:
    """Nobody waits for the callback that waits."""
    executor = Executor()
    future = executor.submit(gate)
    down = threading.Event()

    def shut(_: Any) -> None:
        executor.shutdown()
        down.set()

    future.add_done_callback(shut)
    if started:
        gate.wait_entered()
    gate.open()
    assert down.wait(TIMEOUT)


def test_by_several_threads(coordinator: Coordinator, gate: Gate) -> None:
    executor = Executor()
    future = executor.submit(gate)
    gate.wait_entered()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        shut = [threads.submit(executor.shutdown) for _ in range(4)]
        assert not any(each.done() for each in shut)
        gate.open()
        assert [each.result(TIMEOUT) for each in shut] == [None] * 4
    assert future.done()


def test_on_a_loops_thread(coordinator: Coordinator, gate: Gate) -> None:
    async def main() -> Any:
        executor = Executor()
        future = executor.submit(gate, "ran")
        threading.Timer(0.05, gate.open).start()
        executor.shutdown()
        return await future

    assert asyncio.run(main()) == "ran"


def test_dropped_without_shutdown(coordinator: Coordinator, gate: Gate) -> None:
    executor = Executor(1)
    watched = weakref.ref(executor)
    futures = [executor.submit(gate, n) for n in range(5)]
    del executor
    gc.collect()
    assert watched() is None
    gate.open()
    assert [each.result(TIMEOUT) for each in futures] == list(range(5))
