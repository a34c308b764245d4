"""Waiting for tokens at the very moment they end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tokengate import Token, TokenKilled

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd


class Mark:
    """A callback that counts its calls."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, token: Token[object]) -> None:
        assert token.done()
        self.calls += 1


async def meanwhile(count: int, work: Callable[[int], None]) -> None:
    """Run work(0) ... work(count - 1) in threads, with this loop alive."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[loop.run_in_executor(pool, work, i) for i in range(count)])


async def test_callbacks_added_while_the_token_ends(books: Books) -> None:
    """Four threads add callbacks to tokens that are just ending: each is called exactly once."""
    marks: list[Mark] = []
    for _ in range(20):
        tokens = [books.call(object) for _ in range(100)]

        def add(number: int, tokens: list[Token[object]] = tokens) -> None:
            for token in tokens:
                mark = Mark()
                marks.append(mark)
                token.add_done_callback(mark)
                if number == 3:
                    token.cancel()

        await meanwhile(4, add)
        await asyncio.wait(tokens)
    await asyncio.sleep(0.01)  # nothing waits for it: a second call would come now
    assert len(marks) == 20 * 100 * 4
    assert {mark.calls for mark in marks} == {1}


async def test_callbacks_removed_while_the_token_ends(books: Books) -> None:
    """A callback that was removed is not called; all others are, whatever is removed beside them."""
    lock = threading.Lock()
    kept: list[Mark] = []
    dropped: list[tuple[Mark, int]] = []
    for _ in range(20):
        tokens = [books.call(object) for _ in range(60)]

        def change(number: int, tokens: list[Token[object]] = tokens) -> None:
            for token in tokens:
                stays, goes = Mark(), Mark()
                token.add_done_callback(goes)
                token.add_done_callback(stays)
                removed = token.remove_done_callback(goes)
                with lock:
                    kept.append(stays)
                    dropped.append((goes, removed))

        await meanwhile(3, change)
        await asyncio.wait(tokens)
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)  # nothing waits for it: a second call would come now
    assert {mark.calls for mark in kept} == {1}
    assert all(mark.calls + removed == 1 for mark, removed in dropped)


async def test_removing_a_callback_never_loses_another(books: Books, gate: Gate) -> None:
    """`==` of a callback may be Python code, which lets other threads in."""
    token = books.call(gate)
    mark = Mark()

    class Slow(Mark):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            adder = threading.Thread(target=token.add_done_callback, args=(mark,))
            adder.start()
            adder.join(20)
            return False

        __hash__ = object.__hash__

    slow = Slow()
    token.add_done_callback(slow)
    assert token.remove_done_callback(print) == 0
    gate.open()
    await token
    await asyncio.sleep(0)
    assert slow.calls == 1
    assert mark.calls >= 1


def test_blocked_threads_race_with_the_end(books: Books, crowd: Crowd, dice: random.Random) -> None:
    """Timeouts around the moment of the end: a result or a TimeoutError, never neither."""
    tokens = [books.call(object) for _ in range(4_000)]
    seeds = [dice.random() for _ in range(6)]
    results: list[dict[int, object]] = [{} for _ in seeds]

    def wait(number: int) -> None:
        mine = random.Random(seeds[number])
        for i, token in enumerate(tokens):
            while i not in results[number]:
                try:
                    results[number][i] = token.result(mine.choice([None, 0, 1e-6, 1e-4]))
                except TimeoutError:
                    pass
                except concurrent.futures.CancelledError:
                    results[number][i] = None
            if mine.random() < 0.05:
                tokens[mine.randrange(len(tokens))].cancel()

    crowd(len(seeds), wait)
    for i, token in enumerate(tokens):
        expected = None if token.cancelled() else token.result()
        assert all(result[i] is expected for result in results)


def test_one_token_many_blocked_threads(books: Books, crowd: Crowd) -> None:
    for way in ("return", "cancel", "kill") * 10:
        entered, leave = threading.Event(), threading.Event()

        def body(entered: threading.Event = entered, leave: threading.Event = leave) -> bool:
            entered.set()
            return leave.wait(60)

        token = books.call(body)

        def wait(
            number: int,
            way: str = way,
            token: Token[object] = token,
            entered: threading.Event = entered,
            leave: threading.Event = leave,
        ) -> None:
            if number == 0:
                assert entered.wait(60)
                if way == "cancel":
                    assert token.cancel()
                elif way == "kill":
                    assert token.kill("for the test")
                leave.set()
            elif way == "return":
                assert token.result(60) is True
            elif way == "cancel":
                with pytest.raises(concurrent.futures.CancelledError):
                    token.result(60)
            else:
                with pytest.raises(TokenKilled, match="for the test"):
                    token.result(60)

        # the last case raises one exception in several threads, which 3.13t itself cannot stand
        crowd(2 if way == "kill" else 8, wait)


def test_tokens_killed_together_raise_each_their_own(
    new_coordinator: NewCoordinator, crowd: Crowd, gate: Gate
) -> None:
    """What one awaiter does with its exception is not seen by the awaiter of another token."""
    coordinator = new_coordinator(thread_workers=1)
    holder = coordinator.submit(gate)
    gate.wait_entered()
    tokens = [coordinator.submit(object) for _ in range(2_000)]
    stopper = threading.Thread(target=coordinator.stop, args=(20, True))
    stopper.start()
    errors: list[BaseException] = []

    def ask(number: int) -> None:
        for token in tokens[number::4]:
            try:
                token.result(20)
            except TokenKilled as error:
                trace = error.__traceback__
                while trace is not None:
                    assert trace.tb_frame.f_code.co_name in ("ask", "result", "outcome") or (
                        "tokengate" in trace.tb_frame.f_code.co_filename
                    )
                    trace = trace.tb_next
                errors.append(error)

    crowd(4, ask)
    gate.open()
    stopper.join(20)
    assert holder.done()
    assert len({id(error) for error in errors}) == len(tokens)
