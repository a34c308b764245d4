"""Blocking on tokens: on a plain thread, and on a worker, which must never wait for itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    Token,
    TokenKilled,
    TokenState,
    as_completed,
    current_token,
    gather,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate


@task_token_guard
def double(x: int) -> int:
    return 2 * x


# -- on a plain thread -----------------------------------------------------------------------------


def test_result_blocks_until_the_end(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, "value")
    gate.wait_entered()
    got: list[Any] = []
    waiters = [threading.Thread(target=lambda: got.append(token.result(20))) for _ in range(5)]
    for waiter in waiters:
        waiter.start()
    gate.open()
    for waiter in waiters:
        waiter.join(20)
    assert got == ["value"] * 5
    assert token.result() == "value"
    assert token.exception() is None


@pytest.mark.parametrize("timeout", [0, -1, 0.001, 0.01])
def test_a_timeout_passes_and_the_token_goes_on(
    coordinator: Coordinator, gate: Gate, timeout: float
) -> None:
    token = coordinator.submit(gate, "value")
    for ask in (token.result, token.exception):
        with pytest.raises(TimeoutError):
            ask(timeout)
    assert not token.done()
    gate.open()
    assert token.result(20) == "value"
    assert token.result(0) == "value"


def test_a_timeout_longer_than_the_system_can_wait(coordinator: Coordinator) -> None:
    for _ in range(20):
        assert coordinator.submit(int, "3").result(1e300) == 3
        assert coordinator.submit(int, "3").exception(1e300) is None


@pytest.mark.parametrize("wrong", ["5", [], float("nan"), object()])
def test_a_timeout_must_be_a_number(coordinator: Coordinator, gate: Gate, wrong: Any) -> None:
    token = coordinator.submit(gate, "value")
    for ask in (token.result, token.exception):
        with pytest.raises((TypeError, ValueError)):
            ask(wrong)
    gate.open()
    assert token.result(20) == "value"


def test_a_cancelled_token_raises_what_threads_expect(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            token.result(20)
        except concurrent.futures.CancelledError as error:
            caught.append(error)

    waiter = threading.Thread(target=ask)
    waiter.start()
    token.cancel("why")
    waiter.join(20)
    assert [error.args for error in caught] == [("why",)]
    for again in (token.result, token.exception):
        with pytest.raises(concurrent.futures.CancelledError):
            again()
    gate.open()


def test_a_killed_token_raises_to_blocked_threads(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    threading.Timer(0, token.kill, ["by order"]).start()
    with pytest.raises(TokenKilled, match="by order"):
        token.result(20)
    assert isinstance(token.exception(), TokenKilled)
    gate.open()


async def test_on_a_thread_with_a_loop_a_pending_token_refuses(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate, 1)
    for ask in (token.result, token.exception):
        with pytest.raises(asyncio.InvalidStateError, match="await"):
            ask()
        with pytest.raises(asyncio.InvalidStateError, match="await"):
            ask(0.1)
    gate.open()
    assert await token == 1
    assert token.result() == 1


async def test_a_thread_may_block_on_a_token_of_a_loop(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate, 1)

    async def ask() -> Any:
        return await token

    awaiting = asyncio.create_task(ask())
    blocking = asyncio.create_task(asyncio.to_thread(token.result, 20))
    gate.wait_entered()
    gate.open()
    assert await asyncio.gather(*[awaiting, blocking]) == [1, 1]


def test_many_threads_submit_and_block(coordinator: Coordinator) -> None:
    def run(first: int) -> list[int]:
        with use(coordinator):
            return [double(i).result(20) for i in range(first, first + 200)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for first, got in zip(range(8), pool.map(run, range(8)), strict=True):
            assert got == [2 * i for i in range(first, first + 200)]


# -- on a worker -----------------------------------------------------------------------------------


async def test_a_worker_runs_what_it_waits_for(single: Coordinator) -> None:
    def outer(depth: int) -> int:
        return 1 if depth == 0 else single.submit(outer, depth - 1).result() + 1

    assert await asyncio.wait_for(single.submit(outer, 30), 20) == 31
    assert single.stats().lanes["thread"].workers == 1


async def test_exception_as_well(single: Coordinator) -> None:
    def outer() -> BaseException | None:
        return single.submit(int, "no number").exception()

    assert isinstance(await asyncio.wait_for(single.submit(outer), 20), ValueError)


async def test_a_nested_failure_passes_through_both(single: Coordinator) -> None:
    def outer() -> int:
        return single.submit(int, "no number").result()

    with pytest.raises(ValueError, match="no number"):
        await asyncio.wait_for(single.submit(outer), 20)
    totals = single.stats().totals
    assert (totals.failed, totals.completed) == (2, 0)


async def test_what_waits_behind_others_is_fetched_from_the_queue(
    single: Coordinator, gate: Gate
) -> None:
    order: list[str] = []
    tokens: list[Token[None]] = []

    def outer() -> None:
        gate()
        order.append("outer")
        tokens[-1].result()
        order.append("outer again")

    token = single.submit(outer)
    gate.wait_entered()
    tokens += [single.submit(order.append, str(i)) for i in range(20)]
    gate.open()
    await asyncio.wait_for(asyncio.gather(token, *tokens), 20)
    assert order[:3] == ["outer", "19", "outer again"]
    assert order[3:] == [str(i) for i in range(19)]
    totals = single.stats().totals
    assert (totals.completed, totals.admitted, totals.waiting) == (21, 0, 0)


async def test_current_token_is_the_innermost(single: Coordinator) -> None:
    def inner() -> Token[Any] | None:
        return current_token()

    def outer() -> tuple[Any, Any, Any, Any]:
        before = current_token()
        token = single.submit(inner)
        return before, token, token.result(), current_token()

    assert current_token() is None
    token = single.submit(outer)
    before, inner_token, during, after = await asyncio.wait_for(token, 20)
    assert before is token
    assert during is inner_token
    assert after is token
    assert current_token() is None


async def test_a_worker_waits_for_one_that_runs_elsewhere(
    coordinator: Coordinator, gate: Gate
) -> None:
    slow = coordinator.submit(gate, "slow")
    gate.wait_entered()
    executing = threading.Event()

    def outer() -> Any:
        executing.set()
        return slow.result(20)

    token = coordinator.submit(outer)
    assert executing.wait(20)
    gate.open()
    assert await asyncio.wait_for(token, 20) == "slow"


async def test_a_timeout_of_a_worker_that_waits_for_one_that_runs_elsewhere(
    coordinator: Coordinator, gate: Gate
) -> None:
    slow = coordinator.submit(gate, "slow")
    gate.wait_entered()

    def outer() -> str:
        with pytest.raises(TimeoutError):
            slow.result(0.001)
        return "gave up"

    assert await asyncio.wait_for(coordinator.submit(outer), 20) == "gave up"
    gate.open()
    await slow


async def test_all_workers_wait_for_new_tokens_at_once(coordinator: Coordinator) -> None:
    together = threading.Barrier(4)

    def outer(i: int) -> int:
        together.wait(20)
        return sum(double(j).result(20) for j in range(i))

    tokens = [coordinator.submit(outer, i) for i in range(4)]
    with use(coordinator):
        assert await asyncio.wait_for(asyncio.gather(*tokens), 20) == [0, 0, 2, 6]


async def test_a_tree_of_tokens_on_one_worker(single: Coordinator) -> None:
    def tree(depth: int) -> int:
        if depth == 0:
            return 1
        left, right = single.submit(tree, depth - 1), single.submit(tree, depth - 1)
        return left.result() + right.result()

    assert await asyncio.wait_for(single.submit(tree, 7), 20) == 128


async def test_our_gather_on_the_only_worker(single: Coordinator) -> None:
    def outer() -> list[int]:
        return gather(*map(double, [1, 2, 3])).result(20)

    assert await asyncio.wait_for(single.submit(outer), 20) == [2, 4, 6]


async def test_a_map_on_the_only_worker(single: Coordinator) -> None:
    def outer() -> list[int]:
        return list(double.map(range(100), in_flight=7))

    token = single.submit(outer)
    try:
        assert await asyncio.wait_for(token, 20) == [2 * i for i in range(100)]
    finally:
        await single.aclose(5, cancel_waiting=True)


async def test_an_unordered_map_on_the_only_worker(single: Coordinator) -> None:
    def outer() -> list[int]:
        return sorted(double.map(range(100), ordered=False))

    assert await asyncio.wait_for(single.submit(outer), 20) == [2 * i for i in range(100)]


async def test_as_completed_on_the_only_worker(single: Coordinator) -> None:
    def outer() -> list[int]:
        return sorted(token.result() for token in as_completed([double(i) for i in range(10)]))

    assert await asyncio.wait_for(single.submit(outer), 20) == [2 * i for i in range(10)]


async def test_an_event_loop_of_its_own_on_the_only_worker(single: Coordinator) -> None:
    async def several() -> list[int]:
        return await asyncio.gather(*map(double, [1, 2]))

    def outer() -> list[int]:
        return asyncio.run(several())

    for _ in range(3):
        assert await asyncio.wait_for(single.submit(outer), 20) == [2, 4]


async def test_a_map_on_an_event_loop_of_its_own(single: Coordinator) -> None:
    async def several() -> list[int]:
        return await double.map(range(100))

    def outer() -> list[int]:
        return asyncio.run(several())

    assert await asyncio.wait_for(single.submit(outer), 20) == [2 * i for i in range(100)]


async def test_the_place_that_was_given_up_is_taken_back(
    single: Coordinator, new_gate: NewGate
) -> None:
    # After waiting workers have gone on, the coordinator of one runs one at a time, as before.
    def outer() -> list[int]:
        return gather(*map(double, [1, 2])).result(20)

    for _ in range(5):
        await asyncio.wait_for(single.submit(outer), 20)
    probe = new_gate()
    tokens = [single.submit(probe) for _ in range(6)]
    probe.wait_entered()
    for _ in range(5):
        probe.let_pass()
        probe.wait_entered()
    probe.open()
    await asyncio.gather(*tokens)
    assert probe.most_inside == 1
    assert single.stats().totals.abandoned_total == 0


async def test_two_coordinators_of_one_worker_call_each_other(
    new_coordinator: NewCoordinator,
) -> None:
    one, two = new_coordinator(thread_workers=1), new_coordinator(thread_workers=1)

    def ping(depth: int) -> int:
        return 0 if depth == 0 else two.submit(pong, depth - 1).result(20) + 1

    def pong(depth: int) -> int:
        return 0 if depth == 0 else one.submit(ping, depth - 1).result(20) + 1

    assert await asyncio.wait_for(one.submit(ping, 6), 20) == 6


async def test_a_cancelled_nested_token(single: Coordinator) -> None:
    def outer() -> str:
        token = single.submit(int)
        token.cancel("not needed")
        with pytest.raises(concurrent.futures.CancelledError, match="not needed"):
            token.result(20)
        return "went on"

    assert await asyncio.wait_for(single.submit(outer), 20) == "went on"


async def test_the_outer_token_is_cancelled_while_it_runs_the_inner(
    single: Coordinator, gate: Gate
) -> None:
    inner: list[Token[Any]] = []

    def outer() -> Any:
        inner.append(single.submit(gate, "inner"))
        return inner[0].result(20)

    token = single.submit(outer)
    gate.wait_entered()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await token
    assert inner[0].state is TokenState.EXECUTING
    assert await asyncio.wait_for(single.submit(int), 20) == 0  # another worker took the place
    gate.open()
    assert await asyncio.to_thread(inner[0].result, 20) == "inner"
    await single.aclose()
    assert not token.abandoned
    assert single.stats().totals.abandoned_now == 0


async def test_both_are_cancelled_while_the_inner_runs(single: Coordinator, gate: Gate) -> None:
    inner: list[Token[Any]] = []

    def outer() -> Any:
        inner.append(single.submit(gate, "inner"))
        with pytest.raises(concurrent.futures.CancelledError):
            inner[0].result(20)
        return "late"

    token = single.submit(outer)
    gate.wait_entered()
    token.cancel()
    inner[0].cancel()
    assert (token.abandoned, inner[0].abandoned) == (True, True)
    assert await asyncio.wait_for(single.submit(int), 20) == 0
    gate.open()
    await single.aclose()
    assert (token.abandoned, inner[0].abandoned) == (False, False)
    totals = single.stats().totals
    assert (totals.cancelled, totals.abandoned_now, totals.abandoned_total) == (2, 0, 2)
    single.start()
    assert await asyncio.wait_for(single.submit(int), 20) == 0


async def test_time_spent_on_nested_tokens_is_in_both_run_times(single: Coordinator) -> None:
    inner: list[Token[Any]] = []

    def outer() -> None:
        inner.append(double(1))
        inner[0].result()

    token = single.submit(outer)
    await asyncio.wait_for(token, 20)
    assert token.run_time >= inner[0].run_time > 0
    created, _, started, finished = token.timestamps
    assert created <= started <= inner[0].timestamps[2]
    assert inner[0].timestamps[3] <= finished


def test_a_timeout_of_zero_on_a_worker_runs_nothing(single: Coordinator) -> None:
    # "Is it done?" is no reason to run it here, for however long it takes.
    ran: list[int] = []

    def outer() -> str:
        token = single.submit(ran.append, 1)
        with pytest.raises(TimeoutError):
            token.result(0)
        return "not done yet" if not ran else "ran"

    assert single.submit(outer).result(20) == "not done yet"
    asyncio.run(single.drain())
    assert ran == [1]
