"""Learning when nothing of a token runs any more, also where it ended before its function did."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token, TokenDeadlock, current_token, task_token_guard, use
from tokengate.waiting import roster_of, wait_empty_on_loop, wait_returned_on_thread

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0

END: list[Any] = [
    pytest.param(lambda token: token.cancel(), id="cancelled"),
    pytest.param(lambda token: token.kill("why"), id="killed"),
]


class Told:
    """A watcher that counts, and notes where it was called and what the token looked like."""

    def __init__(self, token: Token[Any]) -> None:
        self.token = token
        self.calls = 0
        self.threads: list[int] = []
        self.over: list[bool] = []
        self._event = threading.Event()

    def __call__(self) -> None:
        self.calls += 1
        self.threads.append(threading.get_ident())
        self.over.append(self.token.done() and not self.token.abandoned)
        self._event.set()

    def wait(self) -> None:
        assert self._event.wait(TIMEOUT), "the watcher was never told"


def test_told_when_the_function_returns(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    told = Told(token)
    assert token.watch_return(told)
    assert told.calls == 0
    gate.open()
    told.wait()
    assert told.over == [True]
    assert told.threads != [threading.get_ident()]
    assert token.result(TIMEOUT) is None
    assert not token.watch_return(told)
    assert told.calls == 1


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("first", ["ended", "watched"])
def test_an_abandoned_token_is_over_when_its_function_returns(
    coordinator: Coordinator, gate: Gate, end: Callable[[Token[Any]], object], first: str
) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    told = Told(token)
    if first == "ended":
        end(token)
    assert token.watch_return(told)
    if first == "watched":
        end(token)
    assert token.done()
    assert token.abandoned
    assert told.calls == 0  # its end is not its return
    gate.open()
    told.wait()
    assert told.over == [True]


def test_what_never_started_is_over_at_its_end(coordinator: Coordinator) -> None:
    coordinator.pause()
    token = coordinator.submit(int)
    told = Told(token)
    assert token.watch_return(told)
    token.cancel()
    assert told.threads == [threading.get_ident()]
    assert told.over == [True]
    assert not token.watch_return(told)
    coordinator.resume()


def test_a_refused_call_is_over(coordinator: Coordinator) -> None:
    coordinator.stop()
    assert not coordinator.submit(int).watch_return(pytest.fail)


def test_watchers_are_all_told_and_one_may_go(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    told = [Told(token) for _ in range(4)]
    for one in told:
        assert token.watch_return(one)
    token.unwatch_return(told[1])
    token.unwatch_return(pytest.fail)  # one that never watched
    gate.open()
    told[3].wait()
    assert [one.calls for one in told] == [1, 0, 1, 1]


def test_a_watcher_that_raises_is_logged_and_harms_nobody(
    coordinator: Coordinator, gate: Gate, logged: list[logging.LogRecord]
) -> None:
    def wrong() -> None:
        raise LookupError("a watcher's own")

    token = coordinator.submit(gate)
    gate.wait_entered()
    told = Told(token)
    assert token.watch_return(wrong)
    assert token.watch_return(told)
    gate.open()
    told.wait()
    assert token.result(TIMEOUT) is None
    assert "could not be announced" in logged[0].getMessage()
    assert logged[0].exc_info is not None
    assert isinstance(logged[0].exc_info[1], LookupError)
    logged.clear()


# -- many tokens -----------------------------------------------------------------------------------


async def wait_returned_on_loop(tokens: list[Token[Any]]) -> None:
    """As a group's end does."""
    roster = roster_of(tokens)
    try:
        await wait_empty_on_loop(roster)
    finally:
        roster.clear()


async def test_waiting_on_a_loop(coordinator: Coordinator, gate: Gate) -> None:
    tokens = [coordinator.submit(gate), coordinator.submit(gate), coordinator.submit(int)]
    await gate.entered(2)
    tokens[0].cancel()
    waiting = asyncio.ensure_future(wait_returned_on_loop(tokens))
    gate.let_pass()
    await asyncio.wait([tokens[2]])
    assert not waiting.done()
    gate.open()
    await waiting
    assert all(token.done() and not token.abandoned for token in tokens)
    await wait_returned_on_loop(tokens)
    await wait_returned_on_loop([])


async def test_a_cancelled_wait_leaves_the_tokens_alone(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate)
    await gate.entered()
    waiting = asyncio.ensure_future(wait_returned_on_loop([token]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not token.done()
    gate.open()
    await token


def test_waiting_on_a_thread(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    token.cancel()
    assert not wait_returned_on_thread([token], 0.01)
    assert token.abandoned
    gate.open()
    assert wait_returned_on_thread([token], TIMEOUT)
    assert not token.abandoned
    assert wait_returned_on_thread([token])
    assert wait_returned_on_thread([], 0)


def test_a_worker_helps_and_steps_aside(new_coordinator: NewCoordinator) -> None:
    with new_coordinator(thread_workers=1) as coordinator:

        def outer() -> list[int]:
            tokens = [coordinator.submit(len, "x" * n) for n in range(50)]
            assert wait_returned_on_thread(tokens)
            return [token.result() for token in tokens]

        assert coordinator.submit(outer).result(TIMEOUT) == list(range(50))


def test_waiting_for_oneself_is_a_deadlock(coordinator: Coordinator) -> None:
    def alone() -> None:
        token = current_token()
        assert token is not None
        with pytest.raises(TokenDeadlock, match="would wait for itself"):
            wait_returned_on_thread([token])
        token.cancel()
        with pytest.raises(TokenDeadlock, match="would wait for itself"):
            wait_returned_on_thread([token])
        assert not wait_returned_on_thread([token], 0.01)

    inner = coordinator.submit(alone)
    assert wait_returned_on_thread([inner], TIMEOUT)
    assert inner.cancelled()


def test_two_that_wait_for_each_others_return(new_coordinator: NewCoordinator) -> None:
    """A has ended, which frees nobody: B waits for A's return, and A for B's result."""
    found: list[BaseException] = []
    tokens: list[Token[Any]] = []
    ready = threading.Barrier(2)

    def wait_for(other: int, how: Callable[[Token[Any]], object]) -> None:
        ready.wait(TIMEOUT)
        try:
            how(tokens[other])
        except TokenDeadlock as deadlock:
            found.append(deadlock)

    with new_coordinator(thread_workers=2) as coordinator:
        coordinator.pause()
        tokens.append(coordinator.submit(wait_for, 1, lambda token: token.result()))
        tokens.append(
            coordinator.submit(wait_for, 0, lambda token: wait_returned_on_thread([token]))
        )
        deadline = monotonic() + TIMEOUT
        coordinator.resume()
        assert wait_returned_on_thread(tokens, deadline - monotonic())
    assert len(found) == 1


def test_a_deadline_returns_no_function(new_coordinator: NewCoordinator) -> None:
    found: list[BaseException] = []

    with new_coordinator(thread_workers=2) as coordinator, use(coordinator):

        @task_token_guard(timeout=1000)
        def inner(outer: Token[Any]) -> None:
            entered.set()
            try:
                outer.result()
            except TokenDeadlock as deadlock:
                found.append(deadlock)

        entered = threading.Event()

        def outer() -> None:
            mine = current_token()
            assert mine is not None
            token = inner(mine)
            assert entered.wait(TIMEOUT)
            try:
                wait_returned_on_thread([token])
            except TokenDeadlock as deadlock:
                found.append(deadlock)

        first = coordinator.submit(outer)
        assert wait_returned_on_thread([first], TIMEOUT)
    assert len(found) == 1
