"""Coordinators stopped, started, resized, made and dropped while others use them."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, CoordinatorStopped, Token

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd, WaitUntil


def fail() -> None:
    raise LookupError("on purpose")


@pytest.mark.parametrize("on_loop", [False, True], ids=["stop", "aclose"])
def test_stopped_and_started_while_others_submit(
    books: Books, crowd: Crowd, dice: random.Random, on_loop: bool
) -> None:
    """Each token runs or ends with CoordinatorStopped; nothing hangs and nothing is lost."""
    seeds = [dice.random() for _ in range(4)]
    ran = threading.Semaphore(0)
    over = threading.Event()

    def submit(mine: random.Random) -> None:
        while not over.is_set():
            tokens = [books.call(mine.choice([object, fail])) for _ in range(mine.randrange(1, 20))]
            for token in tokens:
                error = token.exception(60)
                assert error is None or isinstance(error, (LookupError, CoordinatorStopped))
                if error is None:
                    ran.release()

    def stop(mine: random.Random) -> None:
        for _ in range(30):
            for _ in range(mine.randrange(1, 60)):
                assert ran.acquire(timeout=60), "nothing runs after start()"
            if on_loop:
                asyncio.run(books.coordinator.aclose(20, mine.random() < 0.5))
            else:
                books.coordinator.stop(20, mine.random() < 0.5)
            while ran.acquire(blocking=False):
                pass  # of before
            books.coordinator.start()

    def work(number: int) -> None:
        mine = random.Random(seeds[number])
        if number < 3:
            submit(mine)
            return
        try:
            stop(mine)
        finally:
            over.set()

    crowd(4, work)
    states = books.check()
    assert states["COMPLETED"] and states["FAILED"] and states["KILLED"]


def test_stopped_from_several_threads_at_once(
    new_coordinator: NewCoordinator, crowd: Crowd
) -> None:
    for _ in range(40):
        coordinator = new_coordinator(thread_workers=3)
        tokens: list[Token[object]] = []

        def work(
            number: int,
            coordinator: Coordinator = coordinator,
            tokens: list[Token[object]] = tokens,
        ) -> None:
            if number == 0:
                tokens.extend(coordinator.submit(object) for _ in range(30))
            elif number == 1:
                coordinator.stop(20, cancel_waiting=True)
            elif number == 2:
                coordinator.stop(20)
            else:
                asyncio.run(coordinator.aclose(20))

        crowd(4, work)
        assert coordinator.stopped
        assert all(token.done() for token in tokens)
        totals = coordinator.stats().totals
        assert totals.submitted == totals.completed + totals.killed == 30


def test_resized_while_others_submit(books: Books, crowd: Crowd, dice: random.Random) -> None:
    seeds = [dice.random() for _ in range(4)]
    submitting = [True] * 3

    def submit(number: int) -> None:
        for _ in range(50):
            tokens = [books.call(object) for _ in range(20)]
            for token in tokens:
                token.result(60)
        submitting[number] = False

    def resize(mine: random.Random) -> None:
        while any(submitting):
            books.coordinator.resize("thread", mine.randrange(1, 9))
        books.coordinator.resize("thread", 2)

    crowd(4, lambda number: submit(number) if number < 3 else resize(random.Random(seeds[3])))
    assert books.check() == {"COMPLETED": 3_000}
    assert books.coordinator.stats().lanes["thread"].workers <= 8


def test_made_and_dropped_in_many_threads(crowd: Crowd, wait_until: WaitUntil) -> None:
    """A coordinator nobody holds goes, and its workers with it, wherever its last token ended."""
    gone: list[weakref.ref[Any]] = []

    def work(number: int) -> None:
        for i in range(40):
            coordinator = Coordinator(thread_workers=1 + i % 3, name=f"dropped{number}")
            tokens = [coordinator.submit(object) for _ in range(5)]
            gone.append(weakref.ref(coordinator))
            gone.append(weakref.ref(tokens[-1]))
            if i % 4 == 0:
                tokens[-1].result(60)
            elif i % 4 == 1:
                del coordinator  # the tokens still hold it
                for token in tokens:
                    token.result(60)
            elif i % 4 == 2:
                tokens[-1].cancel()
            del tokens  # dropped with all of them on their way, where i % 4 == 3

    def alive() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("dropped")]

    def left() -> list[Any]:
        gc.collect()
        return [ref() for ref in gone if ref() is not None]

    crowd(4, work)
    # what was dropped while it waited goes when it has run, on a worker that may have no name yet
    wait_until(lambda: not left(), lambda: f"{left()} to go")
    wait_until(lambda: not alive(), "the workers to end")


def test_threads_end_with_stop(crowd: Crowd) -> None:
    """When stop() returns, the workers' threads have ended, not nearly ended."""

    def work(number: int) -> None:
        for i in range(60):
            name = f"ending{number}x{i}"
            with Coordinator(thread_workers=3, name=name) as coordinator:
                for _ in range(6):
                    coordinator.submit(object)
            left = [t.name for t in threading.enumerate() if t.name.startswith(name + "-")]
            assert left == []

    crowd(3, work)
