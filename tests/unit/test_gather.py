"""Our own `gather` and `as_completed`: on a loop and off it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    Token,
    TokenKilled,
    as_completed,
    gather,
    gathering,
    task_token_guard,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate


@task_token_guard
def double(x: int) -> int:
    return 2 * x


@task_token_guard
def fail(x: int) -> int:
    raise LookupError(x)


# -- gather ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 1000])
async def test_results_in_the_order_of_the_tokens(coordinator: Coordinator, count: int) -> None:
    results: Any = await gather(*[double(i) for i in range(count)])
    assert results == [2 * i for i in range(count)]
    assert type(results) is list


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 1000])
def test_results_off_the_loop(coordinator: Coordinator, count: int) -> None:
    results: Any = gather(*[double(i) for i in range(count)]).result(60)
    assert results == [2 * i for i in range(count)]


async def test_of_tokens_that_have_ended(coordinator: Coordinator) -> None:
    tokens = [double(i) for i in range(10)]
    await coordinator.drain()
    assert await gather(*tokens) == [2 * i for i in range(10)]
    assert await gather(*tokens, double(10)) == [2 * i for i in range(11)]


async def test_the_same_token_several_times(coordinator: Coordinator) -> None:
    token = double(1)
    assert await gather(*[token, token, double(2), token]) == [2, 2, 4, 2]
    assert await gather(*[token, token]) == [2, 2]


async def test_awaited_twice_gives_the_same_again(coordinator: Coordinator) -> None:
    gathering: Any = gather(double(1), double(2))
    assert await gathering == [2, 4]
    assert await gathering == [2, 4]


async def test_several_gatherings_of_the_same_tokens(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, "value")

    async def one() -> Any:
        return await gather(token, double(1))

    tasks = [asyncio.create_task(one()) for _ in range(5)]
    await gate.entered()
    gate.open()
    assert await asyncio.gather(*tasks) == [["value", 2]] * 5


async def test_of_tokens_of_several_coordinators(new_coordinator: NewCoordinator) -> None:
    coordinators = [new_coordinator(thread_workers=1) for _ in range(3)]
    tokens = [each.submit(abs, -i) for i, each in enumerate(coordinators)]
    assert await gather(*tokens) == [0, 1, 2]


async def test_the_first_failure_in_time_comes_at_once_and_the_others_go_on(
    coordinator: Coordinator, gate: Gate
) -> None:
    slow = coordinator.submit(gate, "slow")
    with pytest.raises(LookupError, match="1"):
        await asyncio.wait_for(wrapped(gather(slow, fail(1))), 20)
    assert not slow.done()
    gate.open()
    assert await slow == "slow"


async def wrapped(gathering: Any) -> Any:
    return await gathering


def test_the_first_failure_off_the_loop(coordinator: Coordinator, gate: Gate) -> None:
    slow = coordinator.submit(gate, "slow")
    with pytest.raises(LookupError, match="1"):
        gather(slow, fail(1)).result(20)
    assert not slow.done()
    gate.open()
    assert slow.result(20) == "slow"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_the_failure_that_came_first_is_raised_whatever_its_place(
    coordinator: Coordinator, new_gate: NewGate, order: tuple[int, ...]
) -> None:
    gates = [new_gate() for _ in order]

    def fail_when_let(i: int) -> None:
        gates[i]()
        raise LookupError(i)

    tokens = [coordinator.submit(fail_when_let, i) for i in range(3)]
    gathered = asyncio.ensure_future(wrapped(gather(*tokens)))
    for i in order:
        await gates[i].entered()
    gates[order[0]].open()
    with pytest.raises(LookupError, match=str(order[0])):
        await asyncio.wait_for(gathered, 20)
    for gate in gates:
        gate.open()
    await coordinator.drain()


async def test_exceptions_in_place_of_results(coordinator: Coordinator, gate: Gate) -> None:
    cancelled, killed = coordinator.submit(gate), coordinator.submit(gate)
    cancelled.cancel("why")
    killed.kill("by order")
    results: Any = await gather(
        double(1), fail(1), cancelled, killed, double(2), return_exceptions=True
    )
    assert results[0] == 2
    assert isinstance(results[1], LookupError)
    assert isinstance(results[2], asyncio.CancelledError)
    assert isinstance(results[3], TokenKilled)
    assert results[4] == 4
    gate.open()


def test_exceptions_in_place_of_results_off_the_loop(coordinator: Coordinator, gate: Gate) -> None:
    cancelled = coordinator.submit(gate)
    cancelled.cancel("why")
    results: Any = gather(double(1), fail(1), cancelled, return_exceptions=True).result(20)
    assert results[0] == 2
    assert isinstance(results[1], LookupError)
    assert isinstance(results[2], concurrent.futures.CancelledError)
    gate.open()


async def test_a_child_that_somebody_cancelled(coordinator: Coordinator, gate: Gate) -> None:
    child, other = coordinator.submit(gate), coordinator.submit(gate, "other")
    gathered = asyncio.ensure_future(wrapped(gather(child, other)))
    await gate.entered(2)
    child.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        await asyncio.wait_for(gathered, 20)
    assert not other.done()  # one child's end is not the others'
    gate.open()
    assert await other == "other"


async def test_cancelling_the_awaiter_cancels_all(coordinator: Coordinator, gate: Gate) -> None:
    tokens = [coordinator.submit(gate) for _ in range(100)]
    task = asyncio.ensure_future(wrapped(gather(*tokens)))
    await gate.entered(4)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert all(token.cancelled() for token in tokens)
    assert gate.calls == 4
    gate.open()
    await coordinator.aclose()
    assert gate.calls == 4


async def test_a_timeout_around_it(coordinator: Coordinator, gate: Gate) -> None:
    tokens = [coordinator.submit(gate) for _ in range(3)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await gather(*tokens)
    assert all(token.cancelled() for token in tokens)
    gate.open()


async def test_within_asyncios_own(coordinator: Coordinator) -> None:
    results: Any = await asyncio.gather(gather(double(1), double(2)), double(3), double.map([4]))
    assert results == [[2, 4], 6, [8]]
    assert await asyncio.wait_for(gather(*[double(1), double(2)]), 20) == [2, 4]


def test_a_timeout_off_the_loop_and_the_tokens_go_on(coordinator: Coordinator, gate: Gate) -> None:
    tokens = [coordinator.submit(gate, 1), coordinator.submit(abs, 2)]
    gathering: Any = gather(*tokens)
    for timeout in (0, 0.01, -1):
        with pytest.raises(TimeoutError):
            gathering.result(timeout)
    assert not tokens[0].done()
    gate.open()
    assert gathering.result(20) == [1, 2]
    assert gathering.result(0) == [1, 2]
    assert gathering.result() == [1, 2]


async def test_on_a_loop_result_says_what_to_do(coordinator: Coordinator) -> None:
    gathering = gather(double(1), double(2))
    with pytest.raises(RuntimeError, match="await"):
        gathering.result()
    assert await gathering == [2, 4]  # type: ignore[comparison-overlap]


def test_off_the_loop_awaiting_says_so(coordinator: Coordinator, gate: Gate) -> None:
    coroutine = wrapped(gather(coordinator.submit(gate)))
    with pytest.raises(RuntimeError):
        coroutine.send(None)
    gate.open()
    asyncio.run(coordinator.drain())


@pytest.mark.parametrize("wrong", [None, 5, "token", [], object()])
def test_takes_tokens_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match="tokens"):
        gather(wrong)
    with pytest.raises(TypeError):
        as_completed([wrong])


async def test_refuses_futures_and_coroutines_with_a_reason(coordinator: Coordinator) -> None:
    future = asyncio.get_running_loop().create_future()
    coroutine = asyncio.sleep(0)
    wrongs: list[Any] = [future, coroutine, double.map([1])]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="tokens"):
            gather(wrong)
    coroutine.close()


async def test_of_tokens_of_another_loop(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, 1)

    async def elsewhere() -> None:
        mine = coordinator.submit(gate, 2)
        with pytest.raises(RuntimeError, match="another event loop"):
            await gather(mine, token)
        await mine

    running = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    await gate.entered(2)
    gate.open()
    await running
    assert await token == 1


async def test_a_gathering_that_was_left_keeps_nothing_once_all_have_ended(
    coordinator: Coordinator, gate: Gate
) -> None:
    slow, others = coordinator.submit(gate, "slow"), [fail(i) for i in range(10)]
    refs = [weakref.ref(other) for other in others]
    with pytest.raises(LookupError):
        await gather(slow, *others)
    await gather(*others, return_exceptions=True)
    del others
    gate.open()
    assert await slow == "slow"
    await coordinator.aclose()
    gc.collect()
    assert not any(ref() for ref in refs)


# -- as_completed ----------------------------------------------------------------------------------


async def test_in_the_order_they_end(coordinator: Coordinator, new_gate: NewGate) -> None:
    gates = [new_gate() for _ in range(4)]
    tokens = [coordinator.submit(gate, i) for i, gate in enumerate(gates)]
    got = []
    coming = as_completed(tokens)
    for i in (2, 0, 3, 1):
        gates[i].open()
        token = await anext(aiter(coming))
        assert token is tokens[i]
        assert token.done()
        got.append(token.result())
    assert got == [2, 0, 3, 1]
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(coming))


def test_in_the_order_they_end_off_the_loop(coordinator: Coordinator, new_gate: NewGate) -> None:
    gates = [new_gate() for _ in range(4)]
    tokens = [coordinator.submit(gate, i) for i, gate in enumerate(gates)]
    coming = iter(as_completed(tokens))
    for i in (2, 0, 3, 1):
        gates[i].open()
        assert next(coming) is tokens[i]
    with pytest.raises(StopIteration):
        next(coming)


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_each_once(coordinator: Coordinator, count: int) -> None:
    tokens = [double(i) for i in range(count)]
    seen = [token async for token in as_completed(tokens)]
    assert len(seen) == count
    assert set(seen) == set(tokens)
    assert len(as_completed(tokens)) == count


def test_each_once_off_the_loop(coordinator: Coordinator) -> None:
    tokens = [double(i) for i in range(1000)]
    assert {token.result() for token in as_completed(iter(tokens))} == set(range(0, 2000, 2))
    assert list(as_completed([])) == []


async def test_one_that_was_named_twice_comes_once_and_counts_once(
    coordinator: Coordinator,
) -> None:
    token, other = double(1), double(2)
    coming = as_completed([token, other, token])
    seen = [each async for each in coming]
    assert sorted(each.result() for each in seen) == [2, 4]
    assert len(coming) == 2


async def test_failed_and_cancelled_ones_come_too(coordinator: Coordinator, gate: Gate) -> None:
    tokens = [fail(1), coordinator.submit(gate), double(1)]
    tokens[1].cancel()
    ends = set()
    async for token in as_completed(tokens):
        ends.add(token.state.name)
        if not token.cancelled():
            token.exception()
    assert ends == {"FAILED", "CANCELLED", "COMPLETED"}
    gate.open()


async def test_leaving_early_leaves_the_others_alone(coordinator: Coordinator, gate: Gate) -> None:
    slow, quick = coordinator.submit(gate, "slow"), coordinator.submit(int)
    async for token in as_completed([slow, quick]):
        assert token is quick
        break
    assert not slow.done()
    gate.open()
    assert await slow == "slow"


async def test_cancelling_the_consumer_leaves_the_tokens_alone(
    coordinator: Coordinator, gate: Gate
) -> None:
    slow = coordinator.submit(gate, "slow")

    async def consume() -> None:
        async for _ in as_completed([slow]):
            pass

    task = asyncio.create_task(consume())
    await gate.entered()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not slow.done()
    gate.open()
    assert await slow == "slow"


async def test_on_a_loop_plain_for_says_what_to_do(coordinator: Coordinator) -> None:
    tokens = [double(1)]
    with pytest.raises(RuntimeError, match="async for"):
        iter(as_completed(tokens))
    assert await tokens[0] == 2


async def test_several_tasks_at_one_are_served_or_told(coordinator: Coordinator) -> None:
    coming = as_completed([double(i) for i in range(200)])
    got: list[int] = []

    async def consume() -> None:
        async for token in coming:
            got.append(token.result())
            await asyncio.sleep(0)

    ends = await asyncio.wait_for(
        asyncio.gather(*[consume() for _ in range(3)], return_exceptions=True), 20
    )
    assert all(end is None or isinstance(end, RuntimeError) for end in ends)
    assert sorted(got) == [2 * i for i in range(200)]
    await coordinator.drain()


def test_a_plain_thread_takes_what_a_loop_has_made(coordinator: Coordinator, gate: Gate) -> None:
    made: list[Token[Any]] = []
    taken: list[Any] = []

    def take() -> None:
        taken.extend(token.result() for token in as_completed(made))
        taken.append(gather(*made).result(20))

    async def main() -> None:
        made.extend(coordinator.submit(gate, i) for i in range(4))
        thread = threading.Thread(target=take)
        thread.start()
        await gate.entered(4)
        gate.open()
        await asyncio.to_thread(thread.join, 20)

    asyncio.run(main())
    assert sorted(taken[:4]) == taken[4] == [0, 1, 2, 3]


def test_one_that_ends_while_the_consumer_looks_is_not_lost(
    coordinator: Coordinator, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = coordinator.submit(gate)
    take = gathering._Inbox.take

    def take_and_let_end(inbox: gathering._Inbox) -> list[Token[Any]]:
        taken = take(inbox)
        token.cancel()
        return taken

    monkeypatch.setattr(gathering._Inbox, "take", take_and_let_end)
    assert list(as_completed([token])) == [token]
    gate.open()
