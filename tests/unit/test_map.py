"""`.map` and `.starmap`, awaited and iterated: what they take, what they give, in which order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, CoordinatorStopped, Token, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, Until


@task_token_guard
def double(x: int) -> int:
    return 2 * x


@task_token_guard
def power(base: int, exponent: int = 2, *, plus: int = 0) -> int:
    return int(base**exponent + plus)


def counting(count: int) -> Iterator[int]:
    yield from range(count)


async def counting_slowly(count: int) -> AsyncIterator[int]:
    for i in range(count):
        await asyncio.sleep(0)
        yield i


class OldStyle:
    """Iterable by its items alone, as Python has always allowed."""

    def __getitem__(self, index: int) -> int:
        if index >= 10:
            raise IndexError(index)
        return index


SOURCES: list[tuple[str, Callable[[int], Any]]] = [
    ("list", lambda n: list(range(n))),
    ("range", range),
    ("generator", counting),
    ("iterator", lambda n: iter(range(n))),
    ("set", lambda n: set(range(n))),
    ("dict", lambda n: dict.fromkeys(range(n))),
    ("async generator", counting_slowly),
]
SYNC = SOURCES[:-1]


@pytest.fixture(params=[source for _, source in SOURCES], ids=[name for name, _ in SOURCES])
def source(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[source for _, source in SYNC], ids=[name for name, _ in SYNC])
def sync_source(request: pytest.FixtureRequest) -> Any:
    return request.param


SIZES = [0, 1, 2, 7, 8, 9, 63, 64, 65, 72, 73, 1000]


# -- awaited ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [None, 1, 3, 64])
async def test_awaited_it_is_a_list_in_the_order_of_the_items(
    coordinator: Coordinator, source: Any, in_flight: int | None
) -> None:
    for size in SIZES:
        results = await double.map(source(size), in_flight=in_flight)
        assert results == [2 * i for i in range(size)]
        assert type(results) is list


async def test_awaited_the_order_of_ending_does_not_matter(
    coordinator: Coordinator, gate: Gate
) -> None:
    later = threading.Event()

    @task_token_guard
    def first_is_last(i: int) -> int:
        if i == 0:
            assert later.wait(20)
        elif i == 3:
            later.set()
        return i

    for ordered in (True, False):
        later.clear()
        assert await first_is_last.map(range(4), ordered=ordered) == [0, 1, 2, 3]


async def test_starmap(coordinator: Coordinator) -> None:
    assert await power.starmap([(2,), (2, 3), [3, 2], range(2, 4), "ab"[:0] or (5,)]) == [
        4, 8, 9, 8, 25,
    ]  # fmt: skip
    assert [value async for value in power.starmap((i, 3) for i in range(3))] == [0, 1, 8]
    assert await task_token_guard(lambda *args: args).starmap([(), (1,), iter((1, 2))]) == [
        (), (1,), (1, 2),
    ]  # fmt: skip


def test_starmap_off_the_loop(coordinator: Coordinator) -> None:
    assert list(power.starmap([(2,), (2, 3)], plus=1)) == [5, 9]


async def test_starmap_over_an_async_iterable(coordinator: Coordinator) -> None:
    async def pairs() -> AsyncIterator[tuple[int, int]]:
        for i in range(100):
            yield i, 3

    assert await power.starmap(pairs()) == [i**3 for i in range(100)]


async def test_constant_keywords_go_to_every_call(coordinator: Coordinator) -> None:
    assert await power.map([1, 2, 3], exponent=3, plus=10) == [11, 18, 37]
    assert await power.starmap([(1, 3), (2, 3)], plus=10) == [11, 18]
    assert [value async for value in power.map([1, 2], plus=10)] == [11, 14]
    with pytest.raises(TypeError):
        await power.map([1], unknown=1)
    with pytest.raises(TypeError):
        await power.starmap([(1, 3)], exponent=3)


async def test_constant_keywords_are_not_shared(coordinator: Coordinator) -> None:
    @task_token_guard
    def spoil(_: int, **named: Any) -> dict[str, Any]:
        named["added"] = True
        return named

    results = await spoil.map(range(3), a=1)
    assert results == [{"a": 1, "added": True}] * 3
    assert results[0] is not results[1]


async def test_keywords_named_like_anything(coordinator: Coordinator) -> None:
    @task_token_guard
    def named(_: int, **rest: Any) -> dict[str, Any]:
        return rest

    words: dict[str, Any] = dict.fromkeys(("self", "iterable", "guard", "fn", "args", "star"), 1)
    assert await named.map([0], **words) == [words]
    assert await named.starmap([(0,)], **words) == [words]


async def test_tokens_instead_of_results(coordinator: Coordinator) -> None:
    tokens = await double.map([5, 6, 7], tokens=True)
    assert [type(token) for token in tokens] == [Token] * 3
    assert [token.index for token in tokens] == [0, 1, 2]
    assert [token.args for token in tokens] == [(5,), (6,), (7,)]
    assert [token.result() for token in tokens] == [10, 12, 14]
    assert [await token for token in tokens] == [10, 12, 14]
    assert all(token.done() for token in tokens)


async def test_tokens_of_a_starmap_with_keywords(coordinator: Coordinator) -> None:
    tokens = await power.starmap([(2, 3), (3,)], tokens=True, plus=1)
    assert [token.args for token in tokens] == [(2, 3), (3,)]
    assert [token.result() for token in tokens] == [9, 10]


async def test_tokens_of_failures_are_for_the_user_to_ask(coordinator: Coordinator) -> None:
    @task_token_guard
    def odd_fails(i: int) -> int:
        if i % 2:
            raise LookupError(i)
        return i

    for how in (
        odd_fails.map(range(20), tokens=True, return_exceptions=True),
        odd_fails.map(range(20), tokens=True, return_exceptions=True, in_flight=3),
    ):
        tokens = await how
        assert [token.failed for token in tokens] == [False, True] * 10
        assert [str(token.exception()) for token in tokens[1::2]] == [
            str(i) for i in range(1, 20, 2)
        ]


async def test_awaited_under_wait_for_and_gather_and_as_a_task(coordinator: Coordinator) -> None:
    assert await asyncio.wait_for(double.map([1, 2]), 20) == [2, 4]
    assert await asyncio.gather(*[double.map([1]), double.map([2])]) == [[2], [4]]

    async def both() -> list[list[int]]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(i)) for i in range(5)]
        return [task.result() for task in tasks]

    async def run(i: int) -> list[int]:
        return await double.map([i] * i)

    assert await both() == [[2 * i] * i for i in range(5)]


async def test_many_maps_side_by_side(coordinator: Coordinator) -> None:
    maps = [double.map(range(500), in_flight=10) for _ in range(20)]
    assert await asyncio.gather(*maps) == [[2 * i for i in range(500)]] * 20


# -- iterated --------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [None, 1, 3, 64])
async def test_iterated_in_order(
    coordinator: Coordinator, source: Any, in_flight: int | None
) -> None:
    for size in SIZES:
        got = [value async for value in double.map(source(size), in_flight=in_flight)]
        assert got == [2 * i for i in range(size)]


@pytest.mark.parametrize("in_flight", [None, 1, 3, 64])
async def test_iterated_as_they_finish(
    coordinator: Coordinator, source: Any, in_flight: int | None
) -> None:
    got = [value async for value in double.map(source(500), in_flight=in_flight, ordered=False)]
    assert sorted(got) == [2 * i for i in range(500)]


async def test_as_they_finish_the_slow_one_comes_last(coordinator: Coordinator) -> None:
    release = threading.Event()

    @task_token_guard
    def one_waits(i: int) -> int:
        if i == 0:
            assert release.wait(20)
        return i

    got = []
    async for value in one_waits.map(range(50), ordered=False):
        got.append(value)
        if len(got) == 49:
            release.set()
    assert got[-1] == 0
    assert sorted(got) == list(range(50))


async def test_in_order_nothing_overtakes_the_slow_one(coordinator: Coordinator) -> None:
    release = threading.Event()

    @task_token_guard
    def one_waits(i: int) -> int:
        if i == 0:
            assert release.wait(20)
        elif i == 40:
            release.set()
        return i

    assert [value async for value in one_waits.map(range(50))] == list(range(50))


async def test_tokens_as_they_finish(coordinator: Coordinator) -> None:
    seen = {}
    async for token in double.map(range(100), tokens=True, ordered=False):
        assert token.done()
        seen[token.index] = (token.args, token.result())
    assert seen == {i: ((i,), 2 * i) for i in range(100)}


@pytest.mark.parametrize("ordered", [True, False])
def test_iterated_off_the_loop(coordinator: Coordinator, sync_source: Any, ordered: bool) -> None:
    for size in SIZES:
        got = list(double.map(sync_source(size), ordered=ordered, in_flight=7))
        assert (got if ordered else sorted(got)) == [2 * i for i in range(size)]


def test_tokens_off_the_loop(coordinator: Coordinator) -> None:
    tokens = list(double.map(range(100), tokens=True))
    assert [token.index for token in tokens] == list(range(100))
    assert [token.result() for token in tokens] == [2 * i for i in range(100)]


def test_the_iterator_ends_and_stays_at_its_end(coordinator: Coordinator) -> None:
    iterator = iter(double.map([1]))
    assert next(iterator) == 2
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


async def test_the_async_iterator_ends_and_stays_at_its_end(coordinator: Coordinator) -> None:
    iterator = aiter(double.map([1]))
    assert await anext(iterator) == 2
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)


async def test_iterated_in_two_halves(coordinator: Coordinator) -> None:
    mapped = double.map(range(100))
    first = []
    async for value in mapped:
        first.append(value)
        if len(first) == 50:
            break
    rest = [value async for value in mapped]
    assert first + rest == [2 * i for i in range(100)]


async def test_iterating_and_awaiting_the_same_one_does_not_call_twice(
    coordinator: Coordinator,
) -> None:
    calls: list[int] = []
    called = task_token_guard("called once")(calls.append)
    mapped = called.map([1, 2, 3])
    assert await mapped == [None] * 3
    with pytest.raises(RuntimeError):
        await mapped
    with pytest.raises(RuntimeError):
        async for _ in mapped:
            pass
    assert sorted(calls) == [1, 2, 3]


async def test_awaiting_what_is_being_iterated(coordinator: Coordinator) -> None:
    mapped = double.map(range(10))
    iterator = aiter(mapped)
    assert await anext(iterator) == 0
    with pytest.raises(RuntimeError):
        await mapped
    assert [value async for value in iterator] == [2 * i for i in range(1, 10)]


async def test_on_a_loop_plain_for_says_what_to_do(coordinator: Coordinator) -> None:
    with pytest.raises(RuntimeError, match="async for"):
        for _ in double.map([1]):
            pass
    assert coordinator.stats().totals.submitted == 0


def test_off_the_loop_an_async_iterable_says_what_it_needs(coordinator: Coordinator) -> None:
    with pytest.raises(TypeError, match="async for"):
        list(double.map(counting_slowly(3)))


# -- length and the like ---------------------------------------------------------------------------


def test_its_length_where_the_iterable_has_one() -> None:
    assert len(double.map([1, 2, 3])) == 3
    assert len(double.map(range(1000), in_flight=1)) == 1000
    assert len(double.map([])) == 0
    assert bool(double.map([]))
    with pytest.raises(TypeError):
        len(double.map(counting(3)))


def test_the_length_helps_progress_bars_and_list(coordinator: Coordinator) -> None:
    assert list(double.map([1, 2, 3])) == [2, 4, 6]
    assert list(double.map(counting(3))) == [0, 2, 4]
    assert tuple(double.map({1: 0})) == (2,)


async def test_items_by_index_are_iterable_too(coordinator: Coordinator) -> None:
    old: Any = OldStyle()
    assert list(map(double.__wrapped__, old)) == [2 * i for i in range(10)]
    assert await double.map(old) == [2 * i for i in range(10)]


@pytest.mark.parametrize("wrong", [5, None, object(), 1.5])
def test_what_is_no_iterable_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError):
        double.map(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "8", True])
def test_in_flight_must_be_a_number(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="in_flight"):
        double.map([1], in_flight=wrong)


async def test_nothing_happens_until_it_is_consumed(coordinator: Coordinator) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        asked.append(1)
        yield 1

    mapped = double.map(items())
    del mapped
    assert asked == []
    assert coordinator.stats().totals.submitted == 0


async def test_an_iterable_that_refuses_to_begin(coordinator: Coordinator) -> None:
    class Refuses:
        def __iter__(self) -> Iterator[int]:
            raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        await double.map(Refuses())
    with pytest.raises(LookupError, match="not today"):
        async for _ in double.map(Refuses()):
            pass


async def test_starmap_item_that_is_no_tuple(coordinator: Coordinator) -> None:
    for bad in (5, None):
        with pytest.raises(TypeError):
            await power.starmap([(1,), (2,), bad])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            async for _ in power.starmap([(1,), (2,), bad]):  # type: ignore[list-item]
                pass
    await coordinator.drain()
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled


def test_starmap_item_that_is_no_tuple_off_the_loop(coordinator: Coordinator) -> None:
    with pytest.raises(TypeError):
        list(power.starmap([(1,), (2,), 5]))  # type: ignore[list-item]
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled


async def test_of_a_stopped_coordinator(coordinator: Coordinator) -> None:
    await coordinator.aclose()
    with pytest.raises(CoordinatorStopped):
        await double.map(range(1000))
    with pytest.raises(CoordinatorStopped):
        async for _ in double.map(range(1000)):
            pass
    refused = await double.map(range(100), return_exceptions=True)
    assert [type(error) for error in refused] == [CoordinatorStopped] * 100


async def test_stopped_in_the_middle(coordinator: Coordinator, gate: Gate, until: Until) -> None:
    held = task_token_guard("held")(gate)
    mapped = asyncio.ensure_future(held.map(range(100), return_exceptions=True))
    await gate.entered(4)
    await until(lambda: coordinator.stats().totals.submitted == 100)
    stopping = asyncio.create_task(coordinator.aclose(cancel_waiting=True))
    await until(lambda: coordinator.stats().totals.killed == 96)
    gate.open()
    await stopping
    results = await mapped
    assert results[:4] == [0, 1, 2, 3]
    assert [type(error) for error in results[4:]] == [CoordinatorStopped] * 96
