"""Executors under fire: threads submit while others shut down, cancel, wait and listen."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Executor, install, use

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator
    from tests.stress.conftest import Crowd

TIMEOUT = 60.0


def test_submitting_while_others_shut_down(new_coordinator: NewCoordinator, crowd: Crowd) -> None:
    """What was accepted runs, and has run when shutdown comes back."""
    coordinator = new_coordinator(thread_workers=4)
    for _ in range(60):
        executor = Executor(coordinator=coordinator)
        begin = threading.Barrier(4)
        accepted: list[Any] = []
        refused: list[RuntimeError] = []

        def work(number: int) -> None:
            begin.wait()  # noqa: B023 - the crowd is gone before the next round
            if number == 0:
                executor.shutdown()  # noqa: B023
                assert all(each.done() for each in list(accepted))  # noqa: B023
                return
            try:
                while True:
                    accepted.append(executor.submit(int))  # noqa: B023
            except RuntimeError as error:
                refused.append(error)  # noqa: B023

        crowd(4, work)
        assert len(refused) == 3
        assert [each.result(TIMEOUT) for each in accepted] == [0] * len(accepted)


def test_cancel_storm(new_coordinator: NewCoordinator, crowd: Crowd) -> None:
    """Every future ends once: one callback each, and as many runs as results."""
    executor = Executor(3, coordinator=new_coordinator(thread_workers=4))
    lock = threading.Lock()
    runs, told = [0], [0]

    def run() -> None:
        with lock:
            runs[0] += 1

    def tell(_: Any) -> None:
        with lock:
            told[0] += 1

    outcomes: list[bool] = []

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(20):
            futures = [executor.submit(run) for _ in range(50)]
            for each in futures:
                each.add_done_callback(tell)
                if rng.random() < 0.5:
                    each.cancel()
            concurrent.futures.wait(futures, TIMEOUT)
            assert all(each.done() for each in futures)
            outcomes.extend(each.cancelled() for each in futures)

    crowd(4, work)
    executor.shutdown()
    assert len(outcomes) == told[0] == 4_000
    assert runs[0] == outcomes.count(False)


@pytest.mark.parametrize("mode", ["ALL_COMPLETED", "FIRST_COMPLETED", "as_completed"])
def test_waiting_for_what_ends_meanwhile(
    new_coordinator: NewCoordinator, crowd: Crowd, mode: str
) -> None:
    """Nobody comes back early, and nobody is forgotten."""
    executor = Executor(coordinator=new_coordinator(thread_workers=4))

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(150):
            futures = [executor.submit(int) for _ in range(rng.randrange(1, 12))]
            if mode == "as_completed":
                found = list(concurrent.futures.as_completed(futures, TIMEOUT))
                assert len(found) == len(futures)
                assert set(found) == set(futures)
                continue
            done, pending = concurrent.futures.wait(futures, TIMEOUT, mode)
            assert done | pending == set(futures)
            assert len(done) >= (1 if mode == "FIRST_COMPLETED" else len(futures))

    crowd(4, work)
    executor.shutdown()


def test_loops_and_threads_share_one(new_coordinator: NewCoordinator, crowd: Crowd) -> None:
    coordinator = new_coordinator(thread_workers=4)

    async def main(number: int) -> None:
        install()
        rng = random.Random(number)
        loop = asyncio.get_running_loop()
        for _ in range(10):
            calls = [loop.run_in_executor(None, divmod, n, n % 2) for n in range(100)]
            doomed = rng.sample(calls, 30)
            for each in doomed:
                each.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            for n, (call, end) in enumerate(zip(calls, ended, strict=True)):
                if call.cancelled():
                    assert call in doomed
                    assert type(end) is asyncio.CancelledError
                else:
                    assert end == (n, 0) if n % 2 else type(end) is ZeroDivisionError

    def work(number: int) -> None:
        with use(coordinator):
            asyncio.run(main(number))

    crowd(4, work)


def test_names_are_taken_and_left(new_coordinator: NewCoordinator, crowd: Crowd) -> None:
    """Many executors with limits come and go on several threads; none shares its limit."""
    coordinator = new_coordinator(thread_workers=4)

    def work(number: int) -> None:
        for n in range(100):
            inside = threading.Lock()

            def alone() -> None:
                assert inside.acquire(blocking=False)  # noqa: B023 - none of it outlives the turn
                inside.release()  # noqa: B023

            with Executor(1, coordinator=coordinator) as executor:
                futures = [executor.submit(alone) for _ in range(1 + n % 5)]
            assert [each.exception(0) for each in futures] == [None] * len(futures)

    crowd(4, work)
    assert len(coordinator.stats().operations) < 40
