"""`max_workers`: never one more at once, in order, and names that are used again."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Executor, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0


def test_never_more_at_once(coordinator: Coordinator, gate: Gate) -> None:
    executor = Executor(2)
    futures = [executor.submit(gate, n) for n in range(30)]
    gate.wait_entered(2)
    assert Executor().submit(int).result(TIMEOUT) == 0  # two more workers have nothing else to do
    assert gate.inside == 2
    gate.open()
    assert [each.result(TIMEOUT) for each in futures] == list(range(30))
    assert gate.most_inside == 2


def test_one_worker_is_an_order(coordinator: Coordinator) -> None:
    """Across functions, too: the calls are one operation."""
    executor = Executor(1)
    order: list[Any] = []
    inside = threading.Lock()

    def one(n: int) -> None:
        assert inside.acquire(blocking=False)
        order.append(n)
        inside.release()

    def other(n: int) -> None:
        one(n)

    futures = [executor.submit(other if n % 3 else one, n) for n in range(300)]
    assert [each.exception(TIMEOUT) for each in futures] == [None] * 300
    assert order == list(range(300))


def test_abandoned_calls_count(coordinator: Coordinator, gate: Gate) -> None:
    executor = Executor(1)
    running: Any = executor.submit(gate)
    gate.wait_entered()
    running.kill("for the test")
    waiting = executor.submit(int)
    assert Executor().submit(int).result(TIMEOUT) == 0
    assert not waiting.done()
    gate.open()
    assert waiting.result(TIMEOUT) == 0


def test_two_executors_have_two_limits(coordinator: Coordinator, gate: Gate) -> None:
    first, second = Executor(1), Executor(1)
    futures = [first.submit(gate), second.submit(gate)]
    gate.wait_entered(2)
    gate.open()
    assert [each.result(TIMEOUT) for each in futures] == [None, None]
    assert len(coordinator.stats().operations) == 2


@pytest.mark.parametrize("how", ["dropped", "shut down"])
def test_many_one_after_the_other(coordinator: Coordinator, how: str) -> None:
    """A coordinator keeps a thousand operations apart; executors come and go by the thousand."""
    for n in range(5_000):
        executor = Executor(1 + n % 3)
        if n % 10 == 0:
            assert executor.submit(int, "7").result(TIMEOUT) == 7
        if how == "shut down":
            executor.shutdown()
    gc.collect()
    assert len(coordinator.stats().operations) < 20


def test_many_on_several_threads(coordinator: Coordinator) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for n in range(500):
                with Executor(1) as executor:
                    futures = [executor.submit(pow, n, 2), executor.submit(pow, n, 3)]
                assert [each.result(0) for each in futures] == [n**2, n**3]
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(coordinator.stats().operations) < 40


def test_a_name_that_is_busy_is_not_taken(coordinator: Coordinator, gate: Gate) -> None:
    first = Executor(1)
    running = first.submit(gate)
    gate.wait_entered()
    first.shutdown(wait=False)
    second = Executor(3)
    assert second.submit(int).result(TIMEOUT) == 0
    assert set(coordinator.stats().operations) == {"executor-1", "executor-2"}
    gate.open()
    assert running.result(TIMEOUT) is None
    first.shutdown()
    third = Executor(3)
    assert third.submit(int).result(TIMEOUT) == 0
    assert set(coordinator.stats().operations) == {"executor-1", "executor-2"}


def test_somebody_elses_operation_is_not_taken(coordinator: Coordinator) -> None:
    guarded = task_token_guard("mail", limit=7)(len)
    assert guarded("abc").result(TIMEOUT) == 3
    assert Executor(1, thread_name_prefix="mail").submit(len, "ab").result(TIMEOUT) == 2
    assert {name: each.completed for name, each in coordinator.stats().operations.items()} == {
        "mail": 1,
        "mail-2": 1,
    }


def test_a_thousand_at_once_are_too_many(new_coordinator: NewCoordinator) -> None:
    own = new_coordinator(thread_workers=1)
    executors = []
    with pytest.raises(RuntimeError, match="knows a thousand operations already"):
        for _ in range(1_001):
            executors.append(Executor(1, coordinator=own))
    assert len(executors) > 990
    del executors[0]
    gc.collect()
    executors.append(Executor(1, coordinator=own))
    assert executors[-1].submit(int).result(TIMEOUT) == 0
