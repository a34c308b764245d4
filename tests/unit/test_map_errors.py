"""Errors in a map: of a call, of the iterable - and what becomes of the other calls."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    FunctionExited,
    TokenKilled,
    TokenState,
    current_token,
    task_token_guard,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, Until


@task_token_guard
def fails_from_ten(i: int) -> int:
    if i >= 10:
        raise LookupError(i)
    return i


@task_token_guard
def always_fails(i: int) -> int:
    raise LookupError(i)


async def collect(mapped: Any, into: list[Any]) -> None:
    async for value in mapped:
        into.append(value)


def collect_here(mapped: Any, into: list[Any]) -> None:
    for value in mapped:
        into.append(value)


def check_books(coordinator: Coordinator) -> None:
    totals = coordinator.stats().totals
    assert totals.waiting == totals.admitted == totals.executing == totals.abandoned_now == 0
    assert totals.submitted == (
        totals.completed + totals.failed + totals.cancelled + totals.killed + totals.expired
    )


# -- of a call -------------------------------------------------------------------------------------


async def test_awaited_the_first_error_is_raised(coordinator: Coordinator) -> None:
    with pytest.raises(LookupError):
        await fails_from_ten.map(range(5000))
    check_books(coordinator)


async def test_the_first_error_cancels_what_has_not_started(
    new_coordinator: NewCoordinator, gate: Gate, until: Until
) -> None:
    coordinator = new_coordinator(thread_workers=2, loop_lag_target=None)
    started: list[int] = []

    @task_token_guard
    def second_fails(i: int) -> Any:
        started.append(i)
        if i == 0:
            return i
        if i == 1:
            gate.wait_entered()  # the third one has started
            raise LookupError(i)
        return gate(i)

    mapped = asyncio.ensure_future(second_fails.options(coordinator=coordinator).map(range(100)))
    # acted on although others still run
    await until(lambda: coordinator.stats().totals.cancelled)
    gate.open()
    with pytest.raises(LookupError, match="1"):
        await mapped
    # the worker that comes free may have begun the fourth before the error was seen
    assert sorted(started) in ([0, 1, 2], [0, 1, 2, 3])
    totals = coordinator.stats().totals
    assert totals.failed == 1
    assert totals.cancelled == totals.submitted - len(started) > 0
    check_books(coordinator)


async def test_the_first_error_waits_for_what_runs(coordinator: Coordinator, gate: Gate) -> None:
    both = threading.Barrier(2)

    @task_token_guard
    def one_fails(i: int) -> int:
        both.wait(20)
        if i == 0:
            raise LookupError(i)
        return gate(i)  # type: ignore[no-any-return]

    mapped = asyncio.ensure_future(one_fails.map(range(2)))
    await gate.entered()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not mapped.done()  # one of them runs still: raising now would leave it behind
    gate.open()
    with pytest.raises(LookupError, match="0"):
        await mapped
    check_books(coordinator)
    assert coordinator.stats().totals.abandoned_total == 0


async def test_iterated_in_order_what_came_before_is_handed_out(coordinator: Coordinator) -> None:
    got: list[int] = []
    with pytest.raises(LookupError, match="10"):
        await collect(fails_from_ten.map(range(100)), got)
    assert got == list(range(10))
    check_books(coordinator)


async def test_as_they_finish_the_first_error_ends_it(coordinator: Coordinator) -> None:
    got: list[int] = []
    with pytest.raises(LookupError):
        await collect(fails_from_ten.map(range(2000), ordered=False), got)
    assert set(got) <= set(range(10))
    check_books(coordinator)


def test_off_the_loop_too(coordinator: Coordinator) -> None:
    for ordered in (True, False):
        got: list[int] = []
        with pytest.raises(LookupError):
            collect_here(fails_from_ten.map(range(2000), ordered=ordered), got)
        assert set(got) <= set(range(10))
        if ordered:
            assert got == list(range(10))
        check_books(coordinator)


def shapes(coordinator: Coordinator, count: int) -> list[Callable[[], Any]]:
    async def awaited() -> None:
        await always_fails.map(range(count))

    async def small() -> None:
        await always_fails.map(range(count), in_flight=5)

    async def ordered() -> None:
        async for _ in always_fails.map(range(count)):
            pass

    async def unordered() -> None:
        async for _ in always_fails.map(range(count), ordered=False):
            pass

    async def plain() -> None:
        await asyncio.to_thread(list, always_fails.map(range(count)))

    async def plain_unordered() -> None:
        await asyncio.to_thread(list, always_fails.map(range(count), ordered=False))

    return [awaited, small, ordered, unordered, plain, plain_unordered]


@pytest.mark.parametrize("shape", range(6))
async def test_the_errors_nobody_sees_any_more_are_not_reported(
    coordinator: Coordinator, shape: int
) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    for count in (2, 20, 300):
        with pytest.raises(LookupError):
            await shapes(coordinator, count)[shape]()
    await coordinator.aclose()
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert reports == []
    check_books(coordinator)


async def test_errors_in_place_of_results(coordinator: Coordinator) -> None:
    for in_flight in (None, 3):
        results = await fails_from_ten.map(range(20), return_exceptions=True, in_flight=in_flight)
        assert results[:10] == list(range(10))
        assert [error.args for error in results[10:] if isinstance(error, LookupError)] == [
            (i,) for i in range(10, 20)
        ]
    got = [value async for value in fails_from_ten.map(range(20), return_exceptions=True)]
    assert [type(value) for value in got] == [int] * 10 + [LookupError] * 10


def test_errors_in_place_of_results_off_the_loop(coordinator: Coordinator) -> None:
    for ordered in (True, False):
        got = list(fails_from_ten.map(range(20), return_exceptions=True, ordered=ordered))
        assert sorted(type(value).__name__ for value in got) == ["LookupError"] * 10 + ["int"] * 10


async def test_an_exception_as_result_is_a_result(coordinator: Coordinator) -> None:
    @task_token_guard
    def give(_: int) -> Exception:
        return LookupError("a value")

    (error,) = await give.map([1])
    assert isinstance(error, LookupError)


async def test_a_call_that_exits(coordinator: Coordinator) -> None:
    @task_token_guard
    def leave(i: int) -> None:
        if i == 3:
            raise SystemExit(i)

    with pytest.raises(FunctionExited):
        await leave.map(range(10))
    results = await leave.map(range(5), return_exceptions=True)
    assert [type(result) for result in results[2:]] == [type(None), FunctionExited, type(None)]
    check_books(coordinator)


@pytest.mark.parametrize(
    ("act", "error"), [("kill", TokenKilled), ("cancel", asyncio.CancelledError)]
)
async def test_a_token_that_somebody_ends(
    coordinator: Coordinator, gate: Gate, act: str, error: type[BaseException]
) -> None:
    victims: list[Any] = []

    @task_token_guard
    def first_is_a_victim(i: int) -> Any:
        if i == 0:
            victims.append(current_token())
            return gate(i)
        return i

    for in_place in (False, True):
        mapped: Any = first_is_a_victim.map(range(3), return_exceptions=in_place)
        mapped = asyncio.ensure_future(mapped)
        await gate.entered()
        getattr(victims.pop(), act)("from outside")
        if in_place:
            results = await mapped
            assert isinstance(results[0], error)
            assert results[1:] == [1, 2]
        else:
            with pytest.raises(error, match="from outside"):
                await mapped
    gate.open()
    await coordinator.aclose()
    check_books(coordinator)


# -- of the iterable -------------------------------------------------------------------------------


def breaks_after(count: int, error: BaseException) -> Iterator[int]:
    yield from range(count)
    raise error


async def breaks_later(count: int, error: BaseException) -> AsyncIterator[int]:
    for i in range(count):
        yield i
    raise error


BREAKS = [0, 1, 5, 8, 64, 72, 500]


@pytest.mark.parametrize("make", [breaks_after, breaks_later])
async def test_what_the_iterable_raises_comes_out(coordinator: Coordinator, make: Any) -> None:
    @task_token_guard
    def same(i: int) -> int:
        return i

    ways: list[dict[str, Any]] = [{}, {"in_flight": 3}, {"return_exceptions": True}]
    for count in BREAKS:
        for options in ways:
            error = ZeroDivisionError(count)
            with pytest.raises(ZeroDivisionError) as caught:
                await same.map(make(count, error), **options)
            assert caught.value is error
        for ordered in (True, False):
            got: list[int] = []
            with pytest.raises(ZeroDivisionError):
                await collect(same.map(make(count, error), ordered=ordered, in_flight=3), got)
            assert set(got) <= set(range(count))
    check_books(coordinator)


def test_what_the_iterable_raises_comes_out_off_the_loop(coordinator: Coordinator) -> None:
    @task_token_guard
    def same(i: int) -> int:
        return i

    for count in BREAKS:
        for ordered in (True, False):
            with pytest.raises(ZeroDivisionError):
                list(same.map(breaks_after(count, ZeroDivisionError()), ordered=ordered))
    check_books(coordinator)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError(), GeneratorExit()]
)
def test_what_ends_a_program_comes_out_of_the_iterable_as_it_is(
    coordinator: Coordinator, error: BaseException
) -> None:
    @task_token_guard
    def same(i: int) -> int:
        return i

    with pytest.raises(type(error)):
        list(same.map(breaks_after(20, error)))
    coordinator.stop()
    check_books(coordinator)


async def test_an_iterable_that_raises_stop_iteration_of_its_own(coordinator: Coordinator) -> None:
    class Ends:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            raise StopIteration

    assert await always_fails.map(Ends()) == []


async def test_a_lying_length(coordinator: Coordinator) -> None:
    class Liar(list[int]):
        def __len__(self) -> int:
            return 1000

    @task_token_guard
    def same(i: int) -> int:
        return i

    assert await same.map(Liar([1, 2, 3])) == [1, 2, 3]


async def test_an_error_while_the_user_handles_a_value(coordinator: Coordinator) -> None:
    @task_token_guard
    def same(i: int) -> int:
        return i

    async def consume() -> None:
        async with same.map(range(1000)) as values:
            async for value in values:
                if value == 5:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await consume()
    check_books(coordinator)


async def test_an_ended_token_of_a_failed_map_tells_the_truth(coordinator: Coordinator) -> None:
    seen: list[Any] = []

    async def consume() -> None:
        async with fails_from_ten.map(range(20), tokens=True) as tokens:
            async for token in tokens:
                seen.append(token)
                token.result()

    with pytest.raises(LookupError):
        await consume()
    assert [token.state for token in seen[:10]] == [TokenState.COMPLETED] * 10
    assert seen[-1].state is TokenState.FAILED
    await coordinator.drain()
