"""Ending a token from outside: cancel, kill, timeouts - before its function starts and during."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token, TokenKilled, TokenState, current_token

if TYPE_CHECKING:
    from tests.conftest import Gate, NewGate, Pending

    NewPending = Callable[[], Pending]

BY_NAME = [
    pytest.param(lambda future: future.cancel("why"), id="positional"),
    pytest.param(lambda future: future.cancel(msg="why"), id="keyword"),
]


# -- like a future ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel", BY_NAME)
async def test_cancelled_with_a_message(pending: NewPending, cancel: Callable[[Any], bool]) -> None:
    one = pending()
    assert cancel(one.future) is True
    assert one.future.cancelled()
    assert one.future.done()
    assert one.future._cancel_message == "why"
    assert one.future._make_cancelled_error().args == ("why",)
    for ask in (one.future.result, one.future.exception):
        with pytest.raises(asyncio.CancelledError, match="why"):
            ask()
    with pytest.raises(asyncio.CancelledError, match="why"):
        await one.future


async def test_cancelled_without_a_message(pending: NewPending) -> None:
    one = pending()
    one.future.cancel()
    assert one.future._cancel_message is None
    assert one.future._make_cancelled_error().args == ()
    with pytest.raises(asyncio.CancelledError) as caught:
        await one.future
    assert caught.value.args == ()


async def test_a_message_may_be_anything(pending: NewPending) -> None:
    one, message = pending(), object()
    one.future.cancel(message)
    with pytest.raises(asyncio.CancelledError) as caught:
        await one.future
    assert caught.value.args == (message,)


@pytest.mark.parametrize("how", ["finish", "fail", "cancel"])
async def test_cancelling_what_has_ended_changes_nothing(pending: NewPending, how: str) -> None:
    one = pending()
    if how == "finish":
        one.finish(1)
    elif how == "fail":
        one.fail(LookupError("gone"))
    else:
        one.future.cancel("first")
    await asyncio.wait([one.future])
    assert one.future.cancel("second") is False
    assert one.future.cancelled() is (how == "cancel")
    outcome = await asyncio.gather(one.future, return_exceptions=True)
    assert (
        repr(outcome)
        == {
            "finish": "[1]",
            "fail": "[LookupError('gone')]",
            "cancel": "[CancelledError('first')]",
        }[how]
    )


async def test_awaiting_a_cancelled_one_twice_raises_twice(pending: NewPending) -> None:
    one = pending()
    one.future.cancel("why")
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError, match="why"):
            await one.future


async def test_cancelling_the_task_cancels_what_it_awaits(pending: NewPending) -> None:
    one = pending()

    async def ask() -> Any:
        return await one.future

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert one.future.cancelled()
    assert one.future._cancel_message == "enough"


async def test_a_task_cancelled_after_the_end_but_before_it_woke(
    coordinator: Coordinator, gate: Gate
) -> None:
    # The worker has finished, the loop has not drained yet: the value is kept, the task cancelled.
    token = coordinator.submit(gate, "value")

    async def ask() -> Any:
        return await token

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    gate.open()
    await_done(token)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert token.state is TokenState.COMPLETED
    assert await token == "value"


def await_done(token: Token[Any]) -> None:
    """Block, on a thread with a loop, until a worker has ended the token."""
    waiter = threading.Thread(target=token.exception)
    waiter.start()
    waiter.join(20)
    assert token.done()


async def test_a_task_that_swallows_the_cancellation_lives(pending: NewPending) -> None:
    one, other = pending(), pending()

    async def stubborn() -> Any:
        try:
            return await one.future
        except asyncio.CancelledError:
            return await other.future

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    other.finish("second")
    assert await task == "second"


# -- before it starts ------------------------------------------------------------------------------


async def test_cancelled_before_it_starts_it_never_runs(
    single: Coordinator, gate: Gate, new_gate: NewGate
) -> None:
    held, never = single.submit(gate), new_gate()
    gate.wait_entered()
    queued = [single.submit(never) for _ in range(20)]
    for token in queued:
        assert token.cancel()
    assert single.stats().totals.waiting == 0
    gate.open()
    await held
    assert await single.submit(int) == 0
    assert never.calls == 0
    totals = single.stats().totals
    assert (totals.cancelled, totals.abandoned_total, totals.admitted) == (20, 0, 0)


async def test_cancelling_the_awaiting_task_before_the_start(
    single: Coordinator, gate: Gate, new_gate: NewGate
) -> None:
    held, never = single.submit(gate), new_gate()
    gate.wait_entered()

    async def ask() -> None:
        await single.submit(never)

    tasks = [asyncio.create_task(ask()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    gate.open()
    await held
    await single.submit(int)
    assert never.calls == 0


async def test_arguments_of_what_never_runs_are_dropped_at_once(
    single: Coordinator, gate: Gate
) -> None:
    class Big:
        pass

    held = single.submit(gate)
    gate.wait_entered()
    tokens, refs = [], []
    for _ in range(8):  # some admitted, some waiting
        big = Big()
        refs.append(weakref.ref(big))
        tokens.append(single.submit(id, big))
        del big
    assert all(ref() is not None for ref in refs)
    for token in tokens:
        token.cancel()
    assert all(ref() is None for ref in refs)
    gate.open()
    await held


async def test_cancelling_from_the_middle_of_the_queue_keeps_the_others_in_order(
    single: Coordinator, gate: Gate
) -> None:
    order: list[int] = []
    held = single.submit(gate)
    gate.wait_entered()
    tokens = [single.submit(order.append, i) for i in range(50)]
    for token in (*tokens[10:20], *tokens[:1], *tokens[49:]):
        token.cancel()
    gate.open()
    await held
    await asyncio.wait([asyncio.ensure_future(token) for token in tokens])
    assert order == [i for i in range(1, 49) if not 10 <= i < 20]


async def test_a_timeout_before_the_start(
    single: Coordinator, gate: Gate, new_gate: NewGate
) -> None:
    held, never = single.submit(gate), new_gate()
    gate.wait_entered()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(single.submit(never), 0.01)
    gate.open()
    await held
    await single.submit(int)
    assert never.calls == 0


# -- while it runs ---------------------------------------------------------------------------------


async def test_cancelled_while_it_runs(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, "late")
    gate.wait_entered()
    assert token.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await token
    assert token.abandoned
    assert gate.inside == 1
    assert "abandoned" in repr(token)
    totals = coordinator.stats().totals
    assert (totals.cancelled, totals.abandoned_now, totals.abandoned_total) == (1, 1, 1)
    assert (totals.executing, totals.completed) == (0, 0)
    gate.open()
    await coordinator.aclose()
    assert not token.abandoned
    assert token.cancelled()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await token
    totals = coordinator.stats().totals
    assert (totals.cancelled, totals.abandoned_now, totals.abandoned_total) == (1, 0, 1)
    assert (totals.executing, totals.completed) == (0, 0)


async def test_a_late_result_is_dropped(coordinator: Coordinator, gate: Gate) -> None:
    class Result:
        pass

    refs: list[weakref.ref[Result]] = []

    def make() -> Result:
        gate()
        result = Result()
        refs.append(weakref.ref(result))
        return result

    token = coordinator.submit(make)
    gate.wait_entered()
    token.cancel()
    gate.open()
    await coordinator.aclose()
    assert refs[0]() is None
    assert token.cancelled()


async def test_a_late_failure_is_dropped_and_not_reported(
    coordinator: Coordinator, gate: Gate
) -> None:
    def fail() -> None:
        gate()
        raise LookupError("too late for anybody")

    token = coordinator.submit(fail)
    gate.wait_entered()
    token.kill("enough")
    gate.open()
    await coordinator.aclose()
    with pytest.raises(TokenKilled):
        await token
    assert coordinator.stats().totals.failed == 0


async def test_an_abandoned_function_does_not_take_the_only_worker_away(
    single: Coordinator, new_gate: NewGate
) -> None:
    gates = [new_gate() for _ in range(5)]
    for gate in gates:
        token = single.submit(gate)
        gate.wait_entered()
        token.cancel()
        assert await asyncio.wait_for(single.submit(int, "7"), 20) == 7
    totals = single.stats().totals
    assert (totals.abandoned_now, totals.abandoned_total) == (5, 5)
    for gate in gates:
        gate.open()
    await single.aclose()
    assert single.stats().totals.abandoned_now == 0


async def test_after_abandoned_functions_return_no_more_run_at_once_than_before(
    single: Coordinator, new_gate: NewGate
) -> None:
    stuck = [new_gate() for _ in range(4)]
    for gate in stuck:
        token = single.submit(gate)
        gate.wait_entered()
        token.cancel()
    for gate in stuck:
        gate.open()
    await single.aclose()
    single.start()
    probe = new_gate()
    tokens = [single.submit(probe) for _ in range(8)]
    probe.wait_entered()
    for _ in range(7):
        probe.let_pass()
        probe.wait_entered()
    probe.open()
    await asyncio.gather(*tokens)
    assert probe.most_inside == 1


async def test_cancelling_the_awaiting_task_while_it_runs(
    coordinator: Coordinator, gate: Gate
) -> None:
    made: list[Token[Any]] = []

    async def ask() -> None:
        made.append(coordinator.submit(gate))
        await made[0]

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    gate.wait_entered()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made[0].abandoned
    gate.open()
    await coordinator.aclose()
    assert not made[0].abandoned


async def test_a_timeout_while_it_runs(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(token, 0.01)
    assert token.cancelled()
    assert token.abandoned
    gate.open()


async def test_a_timeout_on_one_awaiter_is_seen_by_the_other(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()

    async def ask() -> Any:
        return await token

    other = asyncio.create_task(ask())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(token, 0.01)
    with pytest.raises(asyncio.CancelledError):
        await other
    gate.open()


async def test_cancelled_from_another_thread(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()

    async def ask() -> Any:
        return await token

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    assert await asyncio.to_thread(token.cancel, "from afar") is True
    with pytest.raises(asyncio.CancelledError, match="from afar"):
        await asyncio.wait_for(task, 20)
    gate.open()


async def test_one_of_many_cancellers_wins(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    barrier = threading.Barrier(8)

    def race(number: int) -> bool:
        barrier.wait(20)
        return token.cancel(str(number)) if number % 2 else token.kill(str(number))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert sum(won) == 1
    winner = won.index(True)
    if winner % 2:
        with pytest.raises(asyncio.CancelledError, match=str(winner)):
            await token
    else:
        with pytest.raises(TokenKilled, match=str(winner)):
            await token
    totals = coordinator.stats().totals
    assert totals.cancelled + totals.killed == totals.abandoned_total == 1
    gate.open()


def test_many_tokens_cancelled_while_workers_take_them(coordinator: Coordinator) -> None:
    # Every token ends in exactly one way, and the books agree with the tokens.
    ran: list[int] = []
    tokens = [coordinator.submit(ran.append, i) for i in range(3000)]
    won = [token.cancel() for token in tokens[::-1]]
    concurrent_errors = (concurrent.futures.CancelledError,)
    completed = 0
    for token in tokens:
        try:
            token.result(20)
            completed += 1
        except concurrent_errors:
            pass
    coordinator.stop()
    totals = coordinator.stats().totals
    assert totals.cancelled == sum(won) == 3000 - completed
    assert totals.completed == completed
    assert len(set(ran)) == len(ran) == completed + totals.abandoned_total


async def test_cancelling_a_gather_starts_nothing_more(
    coordinator: Coordinator, gate: Gate
) -> None:
    # It cancels its children in order: the place of the first must not go to one it cancels next.
    tokens = [coordinator.submit(gate) for _ in range(300)]
    gathered = asyncio.gather(*tokens)
    gate.wait_entered(4)
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered
    assert all(token.cancelled() for token in tokens)
    assert coordinator.stats().lanes["thread"].workers <= 8
    assert gate.calls == 4
    gate.open()
    await coordinator.aclose()
    assert gate.calls == 4


# -- kill ------------------------------------------------------------------------------------------


async def test_killed_before_it_starts(single: Coordinator, gate: Gate, new_gate: NewGate) -> None:
    held, never = single.submit(gate), new_gate()
    gate.wait_entered()
    token = single.submit(never)
    assert token.kill("by order") is True
    assert token.kill("again") is False
    assert token.cancel() is False
    assert token.state is TokenState.KILLED
    assert not token.cancelled()
    error = token.exception()
    assert isinstance(error, TokenKilled)
    assert error.reason == "by order"
    assert str(error) == "by order"
    for _ in range(2):
        with pytest.raises(TokenKilled, match="by order"):
            await token
    gate.open()
    await held
    await single.submit(int)
    assert never.calls == 0
    assert single.stats().totals.killed == 1


async def test_killed_while_it_runs(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()

    async def ask() -> Any:
        return await token

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    assert token.kill()
    with pytest.raises(TokenKilled) as caught:
        await task
    assert caught.value.reason == "killed"
    assert token.abandoned
    gate.open()
    await coordinator.aclose()
    assert not token.abandoned
    totals = coordinator.stats().totals
    assert (totals.killed, totals.abandoned_now, totals.abandoned_total) == (1, 0, 1)


async def test_the_reason_must_be_a_text(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, 1)
    for wrong in (None, 5, LookupError("gone")):
        with pytest.raises(TypeError):
            token.kill(wrong)  # type: ignore[arg-type]
    gate.open()
    assert await token == 1


async def test_a_function_may_kill_its_own_token(coordinator: Coordinator) -> None:
    made: list[Token[str]] = []
    ready = threading.Event()

    def end_myself() -> str:
        assert ready.wait(20)
        assert made[0].kill("by itself")
        return "nobody reads this"

    made.append(coordinator.submit(end_myself))
    ready.set()
    with pytest.raises(TokenKilled, match="by itself"):
        await made[0]
    await coordinator.aclose()
    assert not made[0].abandoned


async def test_a_function_may_cancel_its_own_token(coordinator: Coordinator) -> None:
    def end_myself() -> None:
        token = current_token()
        assert token is not None
        token.cancel("by itself")

    with pytest.raises(asyncio.CancelledError, match="by itself"):
        await coordinator.submit(end_myself)


async def test_gather_hears_of_a_killed_child(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    gathered = asyncio.gather(token, coordinator.submit(int), return_exceptions=True)
    token.kill("by order")
    error, value = await gathered
    assert isinstance(error, TokenKilled)
    assert value == 0
    gate.open()
