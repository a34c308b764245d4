"""`max_waiting` and `overflow`: what becomes of a call when so many wait already."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    CoordinatorStopped,
    GateFull,
    Token,
    TokenExpired,
    TokenGateError,
    TokenKilled,
    TokenState,
    gather,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from tests.conftest import AddUp, Gate, NewCoordinator, Until

TIMEOUT = 20.0


def number(text: Any) -> int:
    return int(text)


# -- reject ----------------------------------------------------------------------------------------


async def test_a_refused_call_is_a_killed_token(
    coordinator: Coordinator, gate: Gate, name: str, add_up: AddUp
) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=2)(gate)
    first = guarded(0)
    await gate.entered()
    tokens = [guarded(i) for i in range(1, 6)]
    assert [token.state.name for token in tokens] == ["WAITING"] * 2 + ["KILLED"] * 3
    refused = tokens[2]
    assert refused.done()
    with pytest.raises(GateFull) as told:
        await refused
    assert isinstance(told.value, (TokenKilled, TokenGateError))
    assert name in str(told.value)
    assert "2" in told.value.reason
    assert refused.exception() is told.value
    assert refused.run_time == 0.0
    assert not refused.cancel()
    figures = coordinator.stats().operations[name]
    assert (figures.submitted, figures.rejected, figures.killed, figures.shed) == (6, 3, 3, 0)
    gate.open()
    assert await gather(first, *tokens[:2]) == [0, 1, 2]
    assert gate.calls == 3
    assert add_up(coordinator, name)


async def test_siblings_of_a_refused_call_are_not_lost(
    coordinator: Coordinator, gate: Gate, name: str
) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=1)(gate)
    first = guarded(-1)
    await gate.entered()
    gathered = asyncio.gather(*[guarded(i) for i in range(4)], return_exceptions=True)
    gate.open()
    one, *refused = await gathered
    assert one == 0
    assert [type(each) for each in refused] == [GateFull] * 3
    assert await first == -1


async def test_there_is_room_again_once_one_has_started(
    coordinator: Coordinator, gate: Gate, name: str
) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=1)(gate)
    first, second, third = guarded(1), guarded(2), None
    await gate.entered()
    assert guarded(0).state is TokenState.KILLED
    gate.let_pass()
    await gate.entered()
    third = guarded(3)
    assert third.state is TokenState.WAITING
    gate.open()
    assert await gather(*[first, second, third]) == [1, 2, 3]


@pytest.mark.parametrize("end", ["cancel", "kill", "discard"])
async def test_what_ends_while_it_waits_makes_room(
    coordinator: Coordinator, name: str, end: str
) -> None:
    guarded = task_token_guard(name, max_waiting=1)(number)
    coordinator.pause(guarded)
    waiting = guarded("1")
    assert guarded("2").state is TokenState.KILLED
    if end == "discard":
        assert coordinator.discard(name) == 1
    else:
        assert getattr(waiting, end)()
    again = guarded("3")
    coordinator.resume(guarded)
    assert await again == 3


async def test_free_workers_need_no_room_in_the_queue(
    coordinator: Coordinator, gate: Gate, name: str, until: Until
) -> None:
    """Four may execute and one may wait: of five calls in a row none is refused."""
    guarded = task_token_guard(name, limit=4, max_waiting=1)(gate)
    tokens = [guarded(i) for i in range(5)]
    assert [token for token in tokens if token.state is TokenState.KILLED] == []
    await gate.entered(4)
    assert guarded(5).state is TokenState.KILLED
    gate.open()
    assert await gather(*tokens) == list(range(5))


# -- shed_oldest -----------------------------------------------------------------------------------


async def test_the_oldest_waiting_one_makes_room(
    coordinator: Coordinator, gate: Gate, name: str, add_up: AddUp
) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=2, overflow="shed_oldest")(gate)
    first = guarded(0)
    await gate.entered()
    tokens = [guarded(i) for i in range(1, 6)]
    assert [token.state.name for token in tokens] == ["KILLED"] * 3 + ["WAITING"] * 2
    assert first.state is TokenState.EXECUTING
    with pytest.raises(GateFull, match="newer"):
        await tokens[0]
    figures = coordinator.stats().operations[name]
    assert (figures.submitted, figures.shed, figures.killed, figures.rejected) == (6, 3, 3, 0)
    assert figures.waiting == 2
    gate.open()
    assert await gather(first, *tokens[3:]) == [0, 4, 5]
    assert gate.calls == 3
    assert add_up(coordinator, name)


async def test_awaiters_and_callbacks_of_a_shed_token_hear_of_it(
    coordinator: Coordinator, name: str
) -> None:
    guarded = task_token_guard(name, max_waiting=1, overflow="shed_oldest")(number)
    coordinator.pause(guarded)
    first = guarded("1")
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    first.add_done_callback(told.set_result)
    second = guarded("2")
    assert await told is first
    assert isinstance(first.exception(), GateFull)
    coordinator.resume(guarded)
    assert await second == 2


async def test_only_tokens_of_the_operation_are_shed(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, max_waiting=1, overflow="shed_oldest")(number)
    coordinator.pause()
    others = [coordinator.submit(str, i) for i in range(5)]
    tokens = [guarded(str(i)) for i in range(3)]
    coordinator.resume()
    assert await gather(*others) == list("01234")
    assert await tokens[2] == 2
    assert coordinator.stats().totals.shed == 2


# -- block -----------------------------------------------------------------------------------------


def test_a_plain_thread_waits_for_room(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=1, overflow="block")(gate)
    tokens: list[Token[Any]] = []

    def submit() -> None:
        with use(coordinator):
            for i in range(10):
                tokens.append(guarded(i))

    submitter = threading.Thread(target=submit)
    submitter.start()
    for done in range(1, 9):
        gate.wait_entered()
        # one executes, one waits, one is being made
        assert len(tokens) <= done + 1
        gate.let_pass()
    gate.open()
    submitter.join(TIMEOUT)
    assert [token.result(TIMEOUT) for token in tokens] == list(range(10))
    figures = coordinator.stats().operations[name]
    assert (figures.submitted, figures.completed, figures.killed) == (10, 10, 0)


async def test_on_an_event_loop_it_says_what_to_use_instead(
    coordinator: Coordinator, gate: Gate, name: str, add_up: AddUp
) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=1, overflow="block")(gate)
    tokens = [guarded(0)]
    await gate.entered()
    tokens.append(guarded(1))  # room for one
    with pytest.raises(RuntimeError, match=r"\.map.*reject") as told:
        guarded(2)
    assert name in str(told.value)
    gate.open()
    assert await gather(*tokens) == [0, 1]
    assert gate.calls == 2
    assert add_up(coordinator, name)


async def _blocked(
    coordinator: Coordinator, name: str, until: Until, **policy: Any
) -> tuple[Token[Any], asyncio.Future[Token[Any]]]:
    """A token that fills the queue of a paused operation, and the call that waits for room, in a
    thread of its own: a test that fails must not wait for it."""
    guarded = task_token_guard(name, max_waiting=1, overflow="block", **policy)(number)
    coordinator.pause(guarded)
    waiting = guarded.options(timeout=None)("1")
    begun = threading.Event()
    loop = asyncio.get_running_loop()
    blocked: asyncio.Future[Token[Any]] = loop.create_future()

    def call() -> None:
        with use(coordinator):
            begun.set()
            token = guarded("2")
        loop.call_soon_threadsafe(blocked.set_result, token)

    threading.Thread(target=call, daemon=True).start()
    await until(begun.is_set)
    return waiting, blocked


@pytest.mark.parametrize("how", ["resume", "discard", "cancel", "kill", "configure"])
async def test_what_ends_the_wait_for_room(
    coordinator: Coordinator, name: str, until: Until, how: str, add_up: AddUp
) -> None:
    waiting, blocked = await _blocked(coordinator, name, until)
    if how == "discard":
        assert coordinator.discard(name) == 1
    elif how in ("cancel", "kill"):
        assert getattr(waiting, how)()
    elif how == "configure":
        coordinator.configure(name, max_waiting=5)
    try:
        if how != "resume":
            token = await asyncio.wait_for(asyncio.shield(blocked), TIMEOUT)
            assert token.state is TokenState.WAITING
    finally:
        coordinator.resume(name)
    token = await asyncio.wait_for(blocked, TIMEOUT)
    assert await asyncio.to_thread(token.result, TIMEOUT) == 2
    await coordinator.drain()
    assert add_up(coordinator, name)


async def test_its_deadline_holds_while_it_waits_for_room(
    coordinator: Coordinator, name: str, until: Until, add_up: AddUp
) -> None:
    waiting, blocked = await _blocked(coordinator, name, until, timeout=0.02)
    token = await asyncio.wait_for(blocked, TIMEOUT)
    assert token.state is TokenState.EXPIRED
    with pytest.raises(TokenExpired):
        token.result()
    coordinator.resume(name)
    assert await waiting == 1
    assert add_up(coordinator, name)


async def test_stopping_ends_the_wait_for_room(
    new_coordinator: NewCoordinator, name: str, until: Until, add_up: AddUp
) -> None:
    coordinator = new_coordinator()
    with use(coordinator):
        waiting, blocked = await _blocked(coordinator, name, until)
    stopping = asyncio.create_task(coordinator.aclose())
    refused = await asyncio.wait_for(blocked, TIMEOUT)
    assert refused.state is TokenState.KILLED
    assert isinstance(refused.exception(), CoordinatorStopped)
    coordinator.resume(name)
    await stopping
    assert await waiting == 1
    assert add_up(coordinator, name)


async def test_a_worker_that_waits_for_room_lets_others_work(
    single: Coordinator, name: str
) -> None:
    """With one worker the queue can only become shorter if its function gives way."""
    inner = task_token_guard(name, limit=1, max_waiting=1, overflow="block")(number)

    @task_token_guard(f"{name}, outer")
    def outer() -> list[int]:
        return [token.result() for token in [inner(str(i)) for i in range(6)]]

    async with asyncio.timeout(TIMEOUT):
        assert await outer() == list(range(6))


# -- changed while tokens wait ---------------------------------------------------------------------


async def test_another_overflow_for_what_comes(
    coordinator: Coordinator, name: str, add_up: AddUp
) -> None:
    guarded = task_token_guard(name, max_waiting=1)(number)
    coordinator.pause(guarded)
    first = guarded("1")
    assert guarded("2").state is TokenState.KILLED
    coordinator.configure(guarded, overflow="shed_oldest")
    third = guarded("3")
    assert first.state is TokenState.KILLED
    coordinator.configure(guarded, overflow="block")
    with pytest.raises(RuntimeError, match="block"):
        guarded("4")
    coordinator.configure(guarded, max_waiting=None)
    tokens = [third, *(guarded(str(i)) for i in range(5, 50))]
    coordinator.resume(guarded)
    assert await gather(*tokens) == [3, *range(5, 50)]
    assert add_up(coordinator, name)


async def test_a_lowered_bound_ends_nothing_that_waits(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, max_waiting=10)(number)
    coordinator.pause(guarded)
    tokens = [guarded(str(i)) for i in range(10)]
    coordinator.configure(guarded, max_waiting=2)
    assert guarded("9").state is TokenState.KILLED
    coordinator.resume(guarded)
    assert await gather(*tokens) == list(range(10))
