"""Tokens cancelled and killed at random moments, from everywhere, by the ten thousand."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING

import pytest

from tokengate import Token, TokenKilled

if TYPE_CHECKING:
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd, NewBooks, WaitUntil


def fail() -> None:
    raise LookupError("on purpose")


def spin() -> object:
    return [i * i for i in range(100)]


BODIES = (object, spin, fail)


def test_cancelled_from_other_threads(books: Books, crowd: Crowd, dice: random.Random) -> None:
    """Submitters leave their tokens in a common heap, where others end them."""
    heap: list[Token[object]] = []
    seeds = [dice.random() for _ in range(6)]
    submitting = threading.Semaphore(0)
    won = [0] * 6

    def work(number: int) -> None:
        mine = random.Random(seeds[number])
        if number < 3:
            for _ in range(8_000):
                heap.append(books.call(mine.choice(BODIES)))
            submitting.release()
            return
        finished = 0
        while finished < 3:
            if submitting.acquire(blocking=False):
                finished += 1
                submitting.release()
                finished = 3 if len(heap) == 24_000 else 0
            for _ in range(100):
                if heap:
                    token = heap[-1 - int(mine.expovariate(0.2)) % len(heap)]
                    won[number] += token.kill("storm") if mine.random() < 0.3 else token.cancel()

    crowd(6, work)
    for token in heap:
        token.cancel()
    mopped = len(heap)
    heap.clear()
    states = books.check()
    assert states.total() == mopped == 24_000
    assert states["CANCELLED"] + states["KILLED"] >= sum(won) > 0


def test_one_of_many_enders_wins(books: Books, crowd: Crowd) -> None:
    rounds, enders = 3_000, 3
    tokens: list[Token[object]] = []
    barrier = threading.Barrier(enders)
    wins = [[0] * rounds for _ in range(enders)]

    def work(number: int) -> None:
        for i in range(rounds):
            if number == 0:
                tokens.append(books.call(spin))
            barrier.wait(60)
            token = tokens[i]
            wins[number][i] = token.kill("me") if number % 2 else token.cancel()

    crowd(enders, work)
    books.settle()
    for token, *won in zip(tokens, *wins, strict=True):
        assert sum(won) == (token.state.name in ("CANCELLED", "KILLED"))
        if token.state.name == "KILLED":
            assert won[1]
            with pytest.raises(TokenKilled, match="me"):
                token.result()


def test_awaiting_tasks_are_cancelled(books: Books, crowd: Crowd, dice: random.Random) -> None:
    """Every task ends, and a token whose awaiter was cancelled in time is cancelled itself."""
    seeds = [dice.random() for _ in range(3)]

    async def wait(token: Token[object], how: int) -> object:
        if how == 0:
            return await token
        if how == 1:
            return await asyncio.wait_for(token, 0.0002)
        if how == 2:
            return await asyncio.shield(token)
        async with asyncio.timeout(0.0005):
            return await token

    async def main(mine: random.Random) -> None:
        for _ in range(12):
            tokens = [books.call(mine.choice(BODIES)) for _ in range(150)]
            tasks = [asyncio.ensure_future(wait(token, mine.randrange(4))) for token in tokens]
            for task in mine.sample(tasks, 60):
                asyncio.get_running_loop().call_later(mine.random() * 0.004, task.cancel)
            for token in mine.sample(tokens, 30):
                asyncio.get_running_loop().call_later(mine.random() * 0.004, token.cancel)
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for task, token, outcome in zip(tasks, tokens, ended, strict=True):
                if task.cancelled() or isinstance(outcome, TimeoutError):
                    continue
                assert outcome is (token.exception() or token.result())
            await asyncio.wait(tokens)
            for token in tokens:
                if not token.cancelled():
                    token.exception()

    crowd(3, lambda number: asyncio.run(asyncio.wait_for(main(random.Random(seeds[number])), 60)))


@pytest.mark.parametrize("workers", [1, 3])
def test_executing_functions_are_abandoned(
    new_books: NewBooks, wait_until: WaitUntil, workers: int
) -> None:
    """A run that nobody waits for any more never costs the others their place."""
    books = new_books(thread_workers=workers)
    held: list[threading.Event] = []
    for _ in range(40):
        batch = []
        for _ in range(workers):
            entered, leave = threading.Event(), threading.Event()

            def body(entered: threading.Event = entered, leave: threading.Event = leave) -> bool:
                entered.set()
                return leave.wait(60)

            batch.append((books.call(body), entered))
            held.append(leave)
        for token, entered in batch:
            assert entered.wait(60), "an abandoned run has kept its place"
            assert token.cancel()
            assert token.abandoned
        assert books.call(object).result(60) is not None
    stats = books.coordinator.stats()
    assert stats.totals.abandoned_now == 40 * workers
    assert stats.totals.executing == 0
    for leave in held:
        leave.set()
    assert books.check()["CANCELLED"] == 40 * workers
    # The replacements are no longer needed, and leave: as many remain as were asked for.
    wait_until(
        lambda: books.coordinator.stats().lanes["thread"].workers <= workers, "workers to leave"
    )
