"""Operators who discard, pause and stop while tokens come, start and end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tokengate import CoordinatorStopped, Token, TokenKilled, TokenState

if TYPE_CHECKING:
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd, NewBooks

TIMEOUT = 60.0


def test_discard_while_workers_claim(books: Books, crowd: Crowd) -> None:
    done = threading.Event()
    discarded = [0, 0]

    def work(number: int) -> None:
        if number == 2:
            for _ in range(10_000):
                books.call(object)
            done.set()
            return
        while not done.is_set():
            discarded[number] += books.coordinator.discard(books.guard if number else None)

    crowd(3, work)
    states = books.check()
    assert states["KILLED"] == sum(discarded) > 0
    assert states["COMPLETED"] == 10_000 - sum(discarded)
    totals = books.coordinator.stats().totals
    assert totals.abandoned_total == 0, "discard has ended what executed"


def test_pause_holds_while_tokens_come_and_end(books: Books, crowd: Crowd) -> None:
    """From the return of `pause` to the call of `resume` no worker takes another token."""
    begun: list[None] = []
    done = threading.Event()
    rounds = 0

    def begin() -> None:
        begun.append(None)

    def work(number: int) -> None:
        nonlocal rounds
        if number == 0:
            try:
                for _ in range(200):
                    rounds += 1
                    books.coordinator.pause(books.guard)
                    before = len(begun)
                    books.coordinator.discard(books.guard)
                    # each of the four workers may have been about to begin one
                    assert len(begun) - before <= 4
                    books.coordinator.resume(books.guard)
            finally:
                books.coordinator.resume(books.guard)
                done.set()
            return
        made, seen = 0, 0
        while not done.is_set():
            if made > 500 and seen == rounds:
                time.sleep(0)  # two that call are faster than one that discards
                continue
            made, seen = made + 1 if seen == rounds else 0, rounds
            token = books.call(begin)
            if number == 1:
                token.cancel()

    crowd(3, work)
    states = books.check()
    assert states["COMPLETED"] + states["CANCELLED"] + states["KILLED"] == states.total()


@pytest.mark.parametrize("cancel_waiting", [False, True])
@pytest.mark.parametrize("_", range(5))
def test_pause_during_stop(
    new_books: NewBooks,
    crowd: Crowd,
    capfd: pytest.CaptureFixture[str],
    cancel_waiting: bool,
    _: int,
) -> None:
    books, begin = new_books(thread_workers=3), threading.Event()
    coordinator, tokens = books.coordinator, list[Token[object]]()

    def work(number: int) -> None:
        if number == 0:
            for i in range(2_000):
                tokens.append(books.call(object))
                if i == 500:
                    begin.set()
            return
        begin.wait(TIMEOUT)
        if number == 1:
            coordinator.stop(timeout=0.05, cancel_waiting=cancel_waiting)
            return
        for _ in range(30):
            coordinator.pause(books.guard if number == 2 else None)
            coordinator.resume(books.guard if number == 2 else None)
        coordinator.pause(books.guard)

    crowd(4, work)
    states = books.check()
    assert states["COMPLETED"] + states["KILLED"] == 2_000
    for token in tokens:
        if token.state is TokenState.KILLED:
            assert isinstance(token.exception(), CoordinatorStopped)
            assert isinstance(token.exception(), TokenKilled)
    capfd.readouterr()  # what was left waiting is told on stderr
