"""Streaming through a map: how many are under way, when items are asked for, how much is kept."""

from __future__ import annotations

import asyncio
import gc
import itertools
import queue
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator


@task_token_guard
def same(x: Any) -> Any:
    return x


class Watched:
    """An iterable that counts what was asked of it, against what the consumer has been given."""

    def __init__(self, count: int | None = None) -> None:
        self._items = itertools.count() if count is None else iter(range(count))
        self.asked = 0
        self.given = 0
        self.most_out = 0

    def __iter__(self) -> Iterator[int]:
        for item in self._items:
            self._note()
            yield item

    def give(self) -> None:
        self.given += 1

    def _note(self) -> None:
        self.asked += 1
        self.most_out = max(self.most_out, self.asked - self.given)


class WatchedAsync(Watched):
    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[int]:
        for item in self._items:
            self._note()
            yield item


WATCHED: list[Callable[..., Watched]] = [Watched, WatchedAsync]


# -- never more than in_flight ---------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 2, 3, 10, 100])
async def test_awaited_no_more_run_or_wait_than_in_flight(
    new_coordinator: NewCoordinator, gate: Gate, in_flight: int
) -> None:
    coordinator = new_coordinator(thread_workers=8)
    held = task_token_guard("held")(gate).options(coordinator=coordinator)
    items = Watched(150)
    mapped = asyncio.ensure_future(held.map(items, in_flight=in_flight))
    await gate.entered(min(in_flight, 8))
    for _ in range(20):
        await asyncio.sleep(0)
    totals = coordinator.stats().totals
    assert totals.submitted - totals.completed <= in_flight
    assert items.asked <= in_flight
    gate.open()
    assert await mapped == list(range(150))
    assert gate.most_inside <= in_flight


@pytest.mark.parametrize("make", WATCHED)
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 2, 7, 100])
async def test_iterated_no_more_are_out_than_in_flight(
    coordinator: Coordinator, make: Callable[..., Watched], ordered: bool, in_flight: int
) -> None:
    items = make(1000)
    async for _ in same.map(items, in_flight=in_flight, ordered=ordered):
        items.give()
    assert items.given == items.asked == 1000
    assert items.most_out <= in_flight + 1  # the one in the consumer's hand


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 2, 7, 100])
def test_off_the_loop_no_more_are_out_than_in_flight(
    coordinator: Coordinator, ordered: bool, in_flight: int
) -> None:
    items = Watched(1000)
    for _ in same.map(items, in_flight=in_flight, ordered=ordered):
        items.give()
    assert items.given == items.asked == 1000
    assert items.most_out <= in_flight + 1


async def test_in_order_a_slow_first_one_stops_the_asking(
    coordinator: Coordinator, gate: Gate
) -> None:
    @task_token_guard
    def first_is_slow(i: int) -> int:
        return gate(i) if i == 0 else i

    items = Watched()
    stream = first_is_slow.map(items, in_flight=20)
    coming = asyncio.ensure_future(anext(aiter(stream)))
    await gate.entered()
    for _ in range(200):
        await asyncio.sleep(0)
    assert items.asked <= 20
    gate.open()
    assert await coming == 0
    await stream.aclose()


async def test_a_consumer_that_stops_asking_stops_the_iterable(coordinator: Coordinator) -> None:
    items = Watched()
    stream = aiter(same.map(items, in_flight=10))
    assert await anext(stream) == 0
    asked = items.asked
    for _ in range(100):
        await asyncio.sleep(0)
    assert items.asked == asked <= 11
    await stream.aclose()  # type: ignore[attr-defined]


# -- results come while items still come -----------------------------------------------------------


def test_off_the_loop_the_first_result_needs_no_thousand_items(coordinator: Coordinator) -> None:
    # As when reading lines that come one by one: what is ready shows before more is waited for.
    asked = 0

    def lines() -> Iterator[int]:
        nonlocal asked
        while True:
            busy_for(0.001)
            asked += 1
            yield asked

    results = iter(same.map(lines()))
    assert next(results) == 1
    assert asked < 200
    del results


async def test_on_the_loop_a_slow_item_does_not_keep_results_back(
    coordinator: Coordinator,
) -> None:
    arriving: asyncio.Queue[int] = asyncio.Queue()

    async def lines() -> AsyncIterator[int]:
        while True:
            yield await arriving.get()

    stream = aiter(same.map(lines()))
    for i in range(50):
        arriving.put_nowait(i)
        assert await asyncio.wait_for(anext(stream), 20) == i
    await stream.aclose()  # type: ignore[attr-defined]


def test_off_the_loop_the_function_may_feed_the_iterable(coordinator: Coordinator) -> None:
    # A crawler: what a call finds becomes the next item. Held-back items would wait for each other.
    found: queue.Queue[int] = queue.Queue()
    found.put(0)

    def pages() -> Iterator[int]:
        for _ in range(40):
            yield found.get(timeout=20)

    @task_token_guard
    def visit(page: int) -> int:
        found.put(page + 1)
        return page

    assert list(visit.map(pages())) == list(range(40))


async def test_on_the_loop_the_function_may_feed_the_iterable(coordinator: Coordinator) -> None:
    loop = asyncio.get_running_loop()
    found: asyncio.Queue[int] = asyncio.Queue()

    async def pages() -> AsyncIterator[int]:
        found.put_nowait(0)
        for _ in range(40):
            yield await found.get()
        await found.get()

    @task_token_guard
    def visit(page: int) -> int:
        loop.call_soon_threadsafe(found.put_nowait, page + 1)
        return page

    async def visit_all() -> list[int]:
        return await visit.map(pages())

    assert await asyncio.wait_for(visit_all(), 20) == list(range(40))
    async with asyncio.timeout(20):
        unordered = [page async for page in visit.map(pages(), ordered=False)]
    assert sorted(unordered) == list(range(40))


async def test_the_loop_turns_while_a_slow_iterable_is_read(coordinator: Coordinator) -> None:
    # Each item takes 2 ms of the loop's thread; other callbacks have their turn every few of them.
    turns_at: list[int] = []
    reading, turns = True, 0

    def slow() -> Iterator[int]:
        for i in range(100):
            busy_for(0.002)
            turns_at.append(turns)
            yield i

    async def count_turns() -> None:
        nonlocal turns
        while reading:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    assert await same.map(slow()) == list(range(100))
    reading = False
    await counting
    most = max(len(list(group)) for _, group in itertools.groupby(turns_at))
    assert most <= 10  # 20 ms


def busy_for(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def test_the_loop_turns_while_a_fast_iterable_is_submitted(coordinator: Coordinator) -> None:
    stalls: list[float] = []
    done = False

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while not done:
            await asyncio.sleep(0)
            now = loop.time()
            stalls.append(now - last)
            last = now

    watching = asyncio.create_task(watch())
    assert len(await same.map(range(100_000))) == 100_000
    done = True
    await watching
    assert len(stalls) > 20


# -- early exit ------------------------------------------------------------------------------------


async def test_out_of_an_infinite_iterable(coordinator: Coordinator) -> None:
    for ordered in (True, False):
        got = []
        async with same.map(itertools.count(), ordered=ordered) as values:
            async for value in values:
                got.append(value)
                if len(got) == 100:
                    break
        assert len(set(got)) == 100
    await coordinator.aclose()
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled


async def test_out_of_an_infinite_async_iterable(coordinator: Coordinator) -> None:
    async def forever() -> AsyncIterator[int]:
        for i in itertools.count():
            await asyncio.sleep(0)
            yield i

    got = []
    async with same.map(forever()) as values:
        async for value in values:
            got.append(value)
            if len(got) == 100:
                break
    assert got == list(range(100))


def test_out_of_an_infinite_iterable_off_the_loop(coordinator: Coordinator) -> None:
    got = []
    for value in same.map(itertools.count()):
        got.append(value)
        if len(got) == 100:
            break
    assert got == list(range(100))
    assert list(itertools.islice(same.map(itertools.count()), 5)) == [0, 1, 2, 3, 4]
    first: tuple[Any, ...] = next(zip(same.map(itertools.count()), "a", strict=False))
    assert first == (0, "a")
    coordinator.stop()
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled


@pytest.mark.parametrize("ordered", [True, False])
async def test_the_loop_turns_while_results_are_always_ready(
    coordinator: Coordinator, ordered: bool
) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(others())
    seen = []
    async for _ in same.map(range(50), ordered=ordered):
        seen.append(turns)
        time.sleep(0.002)  # noqa: ASYNC251  so that the workers are ahead
    task.cancel()
    assert sorted(set(seen)) == seen, "no turn for others between two results"


# -- memory ----------------------------------------------------------------------------------------


class Growth:
    """Blocks of memory more than at the beginning."""

    def __init__(self) -> None:
        self._before = sys.getallocatedblocks()
        self.most = 0

    def look(self) -> None:
        self.most = max(self.most, sys.getallocatedblocks() - self._before)


MANY = 200_000
# A token with all that hangs on it is some ten blocks; two hundred thousand would be two million.
ALLOWED = 100_000


@pytest.mark.parametrize("ordered", [True, False])
async def test_two_hundred_thousand_items_in_bounded_memory(
    coordinator: Coordinator, ordered: bool
) -> None:
    growth, total = Growth(), 0
    numbers = (i % 100 for i in range(MANY))
    async for value in same.map(numbers, in_flight=500, ordered=ordered):
        total += value
        if total & 0xFFF == 0:
            growth.look()
    assert total == sum(i % 100 for i in range(MANY))
    assert growth.most < ALLOWED


def test_two_hundred_thousand_items_off_the_loop(coordinator: Coordinator) -> None:
    growth, total = Growth(), 0
    for value in same.map((i % 100 for i in range(MANY)), in_flight=500):
        total += value
        if total & 0xFFF == 0:
            growth.look()
    assert total == sum(i % 100 for i in range(MANY))
    assert growth.most < ALLOWED


async def test_awaited_only_the_results_are_kept(coordinator: Coordinator) -> None:
    growth = Growth()

    def numbers() -> Iterator[int]:
        for i in range(MANY):
            if i & 0xFFF == 0:
                growth.look()
            yield i % 100

    results = await same.map(numbers(), in_flight=500)
    assert len(results) == MANY
    assert growth.most < ALLOWED


async def test_the_tokens_handed_out_are_the_consumers_to_keep(coordinator: Coordinator) -> None:
    refs: list[weakref.ref[Token[Any]]] = []
    async for token in same.map(range(1000), tokens=True, in_flight=10):
        refs.append(weakref.ref(token))
    del token
    await coordinator.aclose()
    gc.collect()
    assert not any(ref() for ref in refs)


def test_each_consumer_thread_has_its_own_stream(coordinator: Coordinator) -> None:
    results: list[list[int]] = []

    def consume() -> None:
        results.append(list(same.options(coordinator=coordinator).map(range(500), in_flight=5)))

    threads = [threading.Thread(target=consume) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [list(range(500))] * 6
