"""Watchers and rosters against every way a token can end, at random moments: told once, never too early."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from tokengate import Token
from tokengate.waiting import wait_returned_on_thread

if TYPE_CHECKING:
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd

TOKENS = 6_000


class Body:
    """A function that knows whether it is on a stack."""

    def __init__(self) -> None:
        self.running = False

    def __call__(self) -> None:
        self.running = True
        for _ in range(20):
            pass
        self.running = False


def test_told_once_and_never_too_early(books: Books, crowd: Crowd, dice: random.Random) -> None:
    heap: list[tuple[Body, Token[object]]] = []
    seeds = [dice.random() for _ in range(6)]
    submitting = threading.Semaphore(0)
    wrong: list[str] = []
    asked: list[tuple[bool, list[int]]] = []

    def watch(body: Body, token: Token[object]) -> None:
        told: list[int] = []

        def notify() -> None:
            told.append(1)
            if body.running or not token.done() or token.abandoned:
                wrong.append(repr(token))

        asked.append((token.watch_return(notify), told))

    def work(number: int) -> None:
        mine = random.Random(seeds[number])
        if number < 2:
            for _ in range(TOKENS):
                body = Body()
                token = books.call(body)
                heap.append((body, token))
                submitting.release()
                if mine.random() < 0.3:
                    watch(body, token)
            return
        for _ in range(TOKENS // 2):
            assert submitting.acquire(timeout=60)
            body, token = mine.choice(heap[-64:])
            if mine.random() < 0.5:
                watch(body, token)
            if mine.random() < 0.4:
                token.cancel()
            elif mine.random() < 0.2:
                token.kill("on purpose")
            if mine.random() < 0.5:
                watch(body, token)

    crowd(6, work)
    books.settle()
    assert wait_returned_on_thread([token for _, token in heap], 60)
    assert wrong == []
    assert all(len(told) == waits for waits, told in asked)
    assert any(waits for waits, _ in asked)
    assert any(not waits for waits, _ in asked)


def test_rosters_on_threads(books: Books, crowd: Crowd, dice: random.Random) -> None:
    seeds = [dice.random() for _ in range(4)]

    def work(number: int) -> None:
        mine = random.Random(seeds[number])
        for _ in range(150):
            bodies = [Body() for _ in range(mine.randrange(30))]
            tokens = [books.call(body) for body in bodies]
            for token in tokens:
                if mine.random() < 0.5:
                    token.cancel()
            assert wait_returned_on_thread(tokens, 60)
            assert not any(body.running for body in bodies)
            assert not any(token.abandoned or not token.done() for token in tokens)

    crowd(4, work)
