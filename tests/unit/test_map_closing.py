"""Leaving a map early, cancelling it, losing it: nothing is left running or waiting."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, Until


@task_token_guard
def same(x: Any) -> Any:
    return x


def books(coordinator: Coordinator) -> tuple[int, int]:
    """(what has not ended, what runs on)"""
    t = coordinator.stats().totals
    return t.submitted - t.completed - t.failed - t.cancelled - t.killed, t.abandoned_now


async def test_leaving_the_block_waits_for_what_runs(
    coordinator: Coordinator, gate: Gate, until: Until
) -> None:
    @task_token_guard
    def all_but_the_first(i: int) -> Any:
        return i if i == 0 else gate(i)

    async def leave() -> Any:
        async with all_but_the_first.map(range(100)) as values:
            async for value in values:
                await gate.entered(3)
                return value
        raise AssertionError

    leaving = asyncio.create_task(leave())
    await until(lambda: coordinator.stats().totals.cancelled)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not leaving.done()
    gate.open()
    assert await leaving == 0
    assert books(coordinator) == (0, 0)
    assert coordinator.stats().totals.abandoned_total == 0


async def test_aclose_twice_and_after_the_end(coordinator: Coordinator) -> None:
    mapped = same.map(range(100))
    stream = aiter(mapped)
    assert await anext(stream) == 0
    await mapped.aclose()
    await mapped.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert books(coordinator) == (0, 0)
    ended = same.map(range(3))
    assert [value async for value in ended] == [0, 1, 2]
    await ended.aclose()


async def test_aclose_before_anything_was_asked(coordinator: Coordinator) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        asked.append(1)
        yield 1

    async with same.map(items()):
        pass
    mapped = same.map(items())
    await mapped.aclose()
    assert asked == []
    assert coordinator.stats().totals.submitted == 0


async def test_a_block_around_an_awaited_map(coordinator: Coordinator) -> None:
    async with same.map(range(100)) as mapped:
        assert await mapped == list(range(100))


async def test_cancelling_the_task_that_awaits_a_map(coordinator: Coordinator, gate: Gate) -> None:
    held = task_token_guard("held")(gate)
    task = asyncio.ensure_future(held.map(range(200)))
    await gate.entered(4)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await asyncio.wait_for(task, 20)
    assert books(coordinator) == (0, 4)  # at once: what runs is abandoned, nothing more starts
    gate.open()
    await coordinator.aclose()
    assert books(coordinator) == (0, 0)
    assert gate.calls == 4


async def test_cancelling_the_task_that_iterates(coordinator: Coordinator, gate: Gate) -> None:
    held = task_token_guard("held")(gate)

    async def consume() -> None:
        async for _ in held.map(itertools.count(), in_flight=50):
            pass

    task = asyncio.create_task(consume())
    await gate.entered(4)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await asyncio.wait_for(task, 20)
    assert books(coordinator) == (0, 4)
    gate.open()
    await coordinator.aclose()
    assert books(coordinator) == (0, 0)
    assert gate.calls == 4


async def test_a_timeout_around_a_map(coordinator: Coordinator, gate: Gate) -> None:
    held = task_token_guard("held")(gate)

    async def run() -> None:
        async with asyncio.timeout(None) as timeout:
            timeouts.append(timeout)
            await held.map(range(200))

    timeouts: list[asyncio.Timeout] = []
    task = asyncio.create_task(run())
    await gate.entered(4)
    timeouts[0].reschedule(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 20)
    gate.open()
    await coordinator.aclose()
    assert books(coordinator) == (0, 0)
    assert gate.calls == 4


async def test_cancelled_while_it_waits_for_what_runs(coordinator: Coordinator, gate: Gate) -> None:
    # The first error waits for what runs; cancelled meanwhile it waits no longer.
    others_run = threading.Barrier(4)

    @task_token_guard
    def one_fails(i: int) -> Any:
        others_run.wait(20)
        if i == 0:
            raise LookupError(i)
        return gate(i)

    task = asyncio.ensure_future(one_fails.map(range(4)))
    await gate.entered(3)
    await coordinator.submit(int)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    gate.open()
    await coordinator.aclose()
    assert books(coordinator) == (0, 0)


async def test_cancelled_while_it_waits_for_the_next_item(coordinator: Coordinator) -> None:
    ended: list[str] = []

    async def never() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.append("closed")

    for consume in (lambda: list_of(same.map(never())), lambda: awaited(same.map(never()))):
        task = asyncio.create_task(consume())
        for _ in range(20):
            await asyncio.sleep(0)
        await coordinator.drain()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
    assert ended == ["closed"] * 2
    assert len(asyncio.all_tasks()) == 1


async def list_of(mapped: Any) -> list[Any]:
    return [value async for value in mapped]


async def awaited(mapped: Any) -> Any:
    return await mapped


async def test_left_early_an_async_source_is_left_alone_or_closed_but_not_running(
    coordinator: Coordinator,
) -> None:
    running = 0

    async def source() -> AsyncIterator[int]:
        nonlocal running
        for i in itertools.count():
            running += 1
            await asyncio.sleep(0)
            running -= 1
            yield i

    items = source()
    async with same.map(items) as values:
        async for value in values:
            if value == 20:
                break
    assert len(asyncio.all_tasks()) == 1
    assert running <= 1
    await items.aclose()  # type: ignore[attr-defined]
    assert books(coordinator) == (0, 0)


async def test_a_source_that_fights_its_cancellation(coordinator: Coordinator) -> None:
    async def stubborn() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ZeroDivisionError("while being closed") from None

    mapped = same.map(stubborn())
    stream = aiter(mapped)
    assert await anext(stream) == 1
    coming = asyncio.ensure_future(anext(stream))
    for _ in range(10):
        await asyncio.sleep(0)
    coming.cancel()
    with pytest.raises((asyncio.CancelledError, ZeroDivisionError)):
        await asyncio.wait_for(coming, 20)
    await mapped.aclose()
    assert len(asyncio.all_tasks()) == 1


def test_a_dropped_iteration_off_the_loop_cancels_the_rest(
    coordinator: Coordinator, gate: Gate
) -> None:
    held = task_token_guard("held")(lambda i: i if i == 0 else gate(i))
    iterator = iter(held.map(range(1000)))
    assert next(iterator) == 0
    gate.wait_entered(4)
    del iterator
    gc.collect()
    assert coordinator.stats().totals.waiting == 0
    gate.open()
    coordinator.stop()
    assert books(coordinator) == (0, 0)


def test_closing_an_iteration_off_the_loop(coordinator: Coordinator, gate: Gate) -> None:
    held = task_token_guard("held")(lambda i: i if i == 0 else gate(i))
    iterator: Any = iter(held.map(range(1000)))
    assert next(iterator) == 0
    gate.wait_entered(3)
    threading.Timer(0.01, gate.open).start()
    iterator.close()
    assert books(coordinator) == (0, 0)
    assert list(iterator) == []
    iterator.close()


def test_a_map_whose_loop_is_closed_under_it(
    coordinator: Coordinator, gate: Gate, unraisable: list[Any]
) -> None:
    # Its task is destroyed pending, and the coroutine in it closed: no noise, and all tokens end.
    held = task_token_guard("held")(gate)
    loop = asyncio.new_event_loop()
    tasks: list[Any] = []

    async def begin() -> None:
        tasks.append(asyncio.ensure_future(awaited(held.map(range(100)))))
        tasks.append(asyncio.ensure_future(list_of(held.map(range(100)))))
        await gate.entered(4)

    loop.run_until_complete(begin())
    for task in tasks:
        task._log_destroy_pending = False
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    tasks.clear()
    gate.open()
    coordinator.stop()
    gc.collect()
    assert unraisable == []
    assert books(coordinator) == (0, 0)


async def test_a_coroutine_that_is_closed_by_hand(coordinator: Coordinator, gate: Gate) -> None:
    held = task_token_guard("held")(gate)
    for consume in (awaited, list_of):
        coroutine = consume(held.map(range(100)))
        coroutine.send(None)
        coroutine.close()
        assert coordinator.stats().totals.waiting == 0
    gate.open()
    await coordinator.aclose()


async def test_an_async_generator_around_a_map(coordinator: Coordinator) -> None:
    async def wrapped() -> AsyncIterator[int]:
        async with same.map(itertools.count(), in_flight=20) as values:
            async for value in values:
                yield value

    stream = wrapped()
    assert [await anext(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    await stream.aclose()  # type: ignore[attr-defined]
    assert books(coordinator) == (0, 0)


@pytest.mark.parametrize("ordered", [True, False])
async def test_several_tasks_at_one_stream_are_served_or_told(
    coordinator: Coordinator, ordered: bool
) -> None:
    stream = aiter(same.map(range(300), in_flight=10, ordered=ordered))
    got: list[int] = []

    async def consume() -> None:
        async for value in stream:
            got.append(value)
            await asyncio.sleep(0)

    ends = await asyncio.wait_for(
        asyncio.gather(*[consume() for _ in range(3)], return_exceptions=True), 20
    )
    assert all(end is None or isinstance(end, RuntimeError) for end in ends)
    assert sorted(got) == list(range(300))
