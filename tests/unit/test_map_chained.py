"""Maps over maps: what one gives is what the next takes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, as_completed, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, Until


@task_token_guard
def double(x: int) -> int:
    return 2 * x


@task_token_guard
def add_one(x: int) -> int:
    return x + 1


@task_token_guard
def pair(x: int) -> tuple[int, int]:
    return x, x


@task_token_guard
def multiply(x: int, y: int) -> int:
    return x * y


@task_token_guard
def fail_at_five(x: int) -> int:
    if x == 5:
        raise LookupError(x)
    return x


EXPECTED = [2 * i + 1 for i in range(500)]


async def test_awaited(coordinator: Coordinator) -> None:
    assert await add_one.map(double.map(range(500))) == EXPECTED
    assert await multiply.starmap(pair.map(range(100))) == [i * i for i in range(100)]


async def test_iterated(coordinator: Coordinator) -> None:
    assert [v async for v in add_one.map(double.map(range(500)))] == EXPECTED
    unordered = add_one.map(double.map(range(500), ordered=False), ordered=False)
    assert sorted([v async for v in unordered]) == EXPECTED


async def test_three_deep_with_small_windows(coordinator: Coordinator) -> None:
    chain = add_one.map(double.map(add_one.map(range(200), in_flight=3), in_flight=2), in_flight=1)
    assert [v async for v in chain] == [2 * (i + 1) + 1 for i in range(200)]


def test_off_the_loop(coordinator: Coordinator) -> None:
    assert list(add_one.map(double.map(range(500)))) == EXPECTED
    assert list(multiply.starmap(pair.map(range(10)))) == [i * i for i in range(10)]


async def test_on_one_worker(single: Coordinator) -> None:
    assert await asyncio.wait_for(awaited(add_one.map(double.map(range(500)))), 20) == EXPECTED


async def awaited(mapped: Any) -> Any:
    return await mapped


async def test_it_streams(coordinator: Coordinator) -> None:
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        while True:
            asked += 1
            yield asked

    async with add_one.map(double.map(items(), in_flight=10), in_flight=10) as values:
        first = [await anext(aiter(values)) for _ in range(5)]
    assert first == [3, 5, 7, 9, 11]
    assert asked < 100


async def test_leaving_the_outer_closes_the_inner(coordinator: Coordinator, until: Until) -> None:
    async with add_one.map(double.map(itertools.count(), in_flight=50)) as values:
        async for _ in values:
            break
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled
    # one that was cancelled while it ran is in the books until it returns
    await until(lambda: coordinator.stats().totals.abandoned_now == 0)
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_in_the_outer_closes_the_inner(coordinator: Coordinator) -> None:
    with pytest.raises(LookupError):
        await fail_at_five.map(add_one.map(itertools.count(), in_flight=20), in_flight=20)
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled + totals.failed
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_in_the_inner_comes_out_of_the_outer(coordinator: Coordinator) -> None:
    with pytest.raises(LookupError, match="5"):
        await add_one.map(fail_at_five.map(range(100)))
    got: list[int] = []

    async def consume() -> None:
        async for value in add_one.map(fail_at_five.map(range(100))):
            got.append(value)

    with pytest.raises(LookupError, match="5"):
        await consume()
    assert got == list(range(1, len(got) + 1))
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled + totals.failed


def test_an_error_in_the_inner_off_the_loop(coordinator: Coordinator) -> None:
    with pytest.raises(LookupError, match="5"):
        list(add_one.map(fail_at_five.map(range(100))))
    with pytest.raises(LookupError, match="5"):
        list(fail_at_five.map(add_one.map(range(100))))
    coordinator.stop()
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled + totals.failed


async def test_cancelling_the_outer_closes_the_inner(
    coordinator: Coordinator, gate: Gate, until: Until
) -> None:
    held = task_token_guard("held in the inner map")(gate)
    task = asyncio.ensure_future(add_one.map(held.map(range(100))))
    await gate.entered(4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    # The inner one hears of it in the loop's next turns.
    await until(lambda: not coordinator.stats().totals.waiting)
    gate.open()
    await coordinator.aclose()
    assert gate.calls == 4
    assert len(asyncio.all_tasks()) == 1


async def test_tokens_of_the_inner_as_items_of_the_outer(coordinator: Coordinator) -> None:
    @task_token_guard
    def result_of(token: Any) -> int:
        return token.result() + 1  # type: ignore[no-any-return]

    assert await result_of.map(double.map(range(50), tokens=True)) == EXPECTED[:50]


async def test_over_as_completed(coordinator: Coordinator) -> None:
    @task_token_guard
    def result_of(token: Any) -> int:
        return token.result() + 1  # type: ignore[no-any-return]

    tokens = [double(i) for i in range(50)]
    assert sorted(await result_of.map(as_completed(tokens))) == EXPECTED[:50]


def test_the_length_is_the_inner_ones() -> None:
    assert len(add_one.map(double.map(range(5)))) == 5
    with pytest.raises(TypeError):
        len(add_one.map(double.map(iter(range(5)))))
