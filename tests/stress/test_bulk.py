"""map, gather and as_completed, many at a time, left early and cancelled at random moments."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

import tokengate
from tokengate import Token

if TYPE_CHECKING:
    from tests.stress.books import Books, Call
    from tests.stress.conftest import Crowd, NewBooks


class Inside:
    """Counts the functions of one map that are running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0

    def __call__(self) -> object:
        with self._lock:
            self.now += 1
        try:
            return object()
        finally:
            with self._lock:
                self.now -= 1


def fail() -> None:
    raise LookupError("on purpose")


def endless(body: Callable[[], object], most: int = 3_000) -> Iterator[Callable[[], object]]:
    for _ in range(most):
        yield body


def test_awaited_maps_are_cancelled(books: Books, crowd: Crowd, dice: random.Random) -> None:
    """After the cancellation at most what was just executing runs, and nothing is taken any more."""
    seeds = [dice.random() for _ in range(3)]

    async def main(mine: random.Random) -> None:
        for _ in range(40):
            taken: list[Call] = []
            source = _noting(taken, books.calls(endless(object, 1_000)))

            async def consume(
                source: Iterator[Call] = source, window: int | None = mine.choice([1, 7, 99, None])
            ) -> list[object]:
                return await books.guard.map(source, in_flight=window)

            task = asyncio.ensure_future(consume())
            asyncio.get_running_loop().call_later(mine.random() * 0.004, task.cancel)
            await asyncio.wait([task])
            count, ran = len(taken), sum(call.runs for call in taken)
            if not task.cancelled():
                assert task.result() == [call.outcome for call in taken]
                assert count == ran == 1_000
            await books.coordinator.drain()
            assert len(taken) == count
            assert sum(call.runs for call in taken) <= ran + 4

    crowd(3, lambda number: asyncio.run(asyncio.wait_for(main(random.Random(seeds[number])), 60)))


@pytest.mark.parametrize("ordered", [True, False])
def test_iterated_maps_are_left(
    books: Books, crowd: Crowd, dice: random.Random, ordered: bool
) -> None:
    """Leaving after any number of results: those were right, and nothing is left running."""
    seeds = [dice.random() for _ in range(4)]

    def check(got: list[object], taken: list[Call]) -> None:
        expected = [call.outcome for call in taken]
        if ordered:
            assert got == expected[: len(got)]
        else:
            assert len(set(map(id, got)) & set(map(id, expected))) == len(got)

    async def on_loop(mine: random.Random) -> None:
        for _ in range(15):
            inside = Inside()
            taken: list[Call] = []
            got: list[object] = []
            leave_after = mine.randrange(300)
            source = _noting(taken, books.calls(endless(inside)))
            window = mine.choice([1, 3, 50, None])
            async with books.guard.map(source, in_flight=window, ordered=ordered) as results:
                async for result in results:
                    got.append(result)
                    if len(got) >= leave_after:
                        break
            assert inside.now == 0
            assert len(taken) <= len(got) + (window or 1_024)
            check(got, taken)

    def on_thread(mine: random.Random) -> None:
        for _ in range(15):
            inside = Inside()
            taken: list[Call] = []
            got: list[object] = []
            leave_after = mine.randrange(300)
            source = _noting(taken, books.calls(endless(inside)))
            mapping = books.guard.map(source, in_flight=mine.choice([1, 3, 50]), ordered=ordered)
            with contextlib.closing(iter(mapping)) as results:  # type: ignore[type-var]
                for result in results:
                    got.append(result)
                    if len(got) >= leave_after:
                        break
            assert inside.now == 0
            check(got, taken)

    def work(number: int) -> None:
        mine = random.Random(seeds[number])
        if number % 2:
            on_thread(mine)
        else:
            asyncio.run(asyncio.wait_for(on_loop(mine), 60))

    crowd(len(seeds), work)


def test_gathered_while_others_cancel(books: Books, crowd: Crowd, dice: random.Random) -> None:
    """gather and as_completed account for every token, whoever ends it, however."""
    heap: list[Token[object]] = []
    seeds = [dice.random() for _ in range(5)]
    consumers = threading.Semaphore(0)

    def batch(mine: random.Random) -> list[Token[object]]:
        tokens = [books.call(mine.choice([object, object, fail])) for _ in range(200)]
        heap.extend(tokens)
        return tokens

    def check(tokens: list[Token[object]], outcomes: list[object]) -> None:
        for token, outcome in zip(tokens, outcomes, strict=True):
            if token.cancelled():
                assert isinstance(outcome, BaseException)
            else:
                assert outcome is (token.exception() or token.result())

    async def on_loop(mine: random.Random) -> None:
        for _ in range(15):
            tokens = batch(mine)
            check(tokens, await tokengate.gather(*tokens, return_exceptions=True))
            tokens = batch(mine)
            ended = [token async for token in tokengate.as_completed(tokens)]
            assert sorted(map(id, ended)) == sorted(map(id, tokens))
            tokens = batch(mine)
            try:
                await tokengate.gather(*tokens)
            except (LookupError, asyncio.CancelledError):
                await asyncio.wait(tokens)

    def on_thread(mine: random.Random) -> None:
        for _ in range(15):
            tokens = batch(mine)
            check(tokens, tokengate.gather(*tokens, return_exceptions=True).result(60))
            tokens = batch(mine)
            ended = list(tokengate.as_completed(tokens))
            assert sorted(map(id, ended)) == sorted(map(id, tokens))

    def work(number: int) -> None:
        mine = random.Random(seeds[number])
        if number == 4:
            stopped = 0
            while stopped < 4:
                if consumers.acquire(blocking=False):
                    stopped += 1
                for _ in range(20):
                    if heap:
                        heap[-1 - int(mine.expovariate(0.02)) % len(heap)].cancel()
            return
        try:
            if number % 2:
                on_thread(mine)
            else:
                asyncio.run(asyncio.wait_for(on_loop(mine), 60))
        finally:
            consumers.release()

    crowd(len(seeds), work)
    for token in heap:
        if not token.cancelled():
            token.exception()


@pytest.mark.parametrize("workers", [1, 2])
def test_nested_waits_do_not_deadlock(new_books: NewBooks, workers: int) -> None:
    """Functions that wait for tokens which wait for tokens, with hardly a worker to run them."""
    books = new_books(thread_workers=workers)

    def tree(depth: int) -> int:
        if depth == 0:
            return 1
        below = [books.call(lambda: tree(depth - 1)) for _ in range(3)]
        if depth == 3:
            return sum(token.result(60) for token in below)  # type: ignore[misc]
        if depth == 2:
            return sum(tokengate.gather(*below).result(60))  # type: ignore[arg-type]
        return sum(token.result() for token in tokengate.as_completed(below))  # type: ignore[misc]

    tokens = [books.call(lambda: tree(3)) for _ in range(10)]
    assert [token.result(60) for token in tokens] == [27] * 10
    assert books.check() == {"COMPLETED": 10 * (1 + 3 + 9 + 27)}


def _noting(taken: list[Call], calls: Iterator[Call]) -> Iterator[Call]:
    for call in calls:
        taken.append(call)
        yield call
