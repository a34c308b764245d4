"""Arguments are the user's own: never walked, compared, hashed, measured or copied."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
import weakref
from typing import Any, NoReturn

import pytest

from tokengate import Coordinator, as_completed, gather, task_token_guard


class Untouchable:
    """Whoever looks at it is told."""

    def _touched(self, *args: Any) -> NoReturn:
        raise AssertionError(f"touched: {args}")

    __eq__ = __ne__ = __lt__ = _touched
    __hash__ = __len__ = __iter__ = __contains__ = __getitem__ = _touched
    __bool__ = __str__ = __repr__ = __format__ = __call__ = _touched
    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = _touched
    __enter__ = __await__ = __aiter__ = __next__ = __index__ = _touched

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"asked for {name}")


@task_token_guard
def same(value: Any, *rest: Any, **named: Any) -> Any:
    return value


@pytest.fixture
def value() -> Untouchable:
    return Untouchable()


def check(got: Any, value: Untouchable) -> None:
    assert type(got) is Untouchable
    assert got is value


async def test_called(coordinator: Coordinator, value: Untouchable) -> None:
    check(await same(value), value)
    check(await same(value, value, named=value), value)
    check(await coordinator.submit(lambda named: named, named=value), value)


def test_blocked_on(coordinator: Coordinator, value: Untouchable) -> None:
    token = same(value)
    check(token.result(20), value)
    assert token.exception() is None
    assert repr(token)


async def test_mapped(coordinator: Coordinator, value: Untouchable) -> None:
    for got in await same.map([value] * 3):
        check(got, value)
    for got in await same.starmap([(value, value)] * 3, named=value):
        check(got, value)
    async for got in same.map([value] * 3):
        check(got, value)
    async for got in same.map([value] * 3, ordered=False):
        check(got, value)
    async for token in same.map([value] * 3, tokens=True):
        check(token.result(), value)
        assert token.args is not None
        check(token.args[0], value)
    for token in await same.map([value] * 3, tokens=True):
        check(token.result(), value)
    for got in await same.map([value] * 3, return_exceptions=True):
        check(got, value)


def test_mapped_off_the_loop(coordinator: Coordinator, value: Untouchable) -> None:
    for got in same.map([value] * 3):
        check(got, value)
    for got in same.map([value] * 3, ordered=False):
        check(got, value)


async def test_gathered(coordinator: Coordinator, value: Untouchable) -> None:
    for got in await gather(same(value), same(value)):
        check(got, value)
    for got in await asyncio.gather(same(value), same(value)):
        check(got, value)
    async for token in as_completed([same(value), same(value)]):
        check(token.result(), value)


async def test_in_a_failure(coordinator: Coordinator, value: Untouchable) -> None:
    def fail(_: Any) -> NoReturn:
        raise LookupError("gone")

    with pytest.raises(LookupError):
        await coordinator.submit(fail, value)
    with pytest.raises(TypeError):
        await coordinator.submit(fail, value, named=value)  # type: ignore[call-arg]


async def test_as_an_exception_message(coordinator: Coordinator, value: Untouchable) -> None:
    def fail() -> NoReturn:
        raise LookupError(value)

    with pytest.raises(LookupError) as caught:
        await coordinator.submit(fail)
    check(caught.value.args[0], value)


async def test_as_a_receiver(coordinator: Coordinator) -> None:
    class Receiver(Untouchable):
        @task_token_guard
        def method(self) -> Any:
            return self

    receiver = Receiver()
    got = await receiver.method()
    assert got is receiver


async def test_as_a_cancel_message(coordinator: Coordinator, value: Untouchable) -> None:
    token = coordinator.submit(sys.intern, "x")
    token.cancel(value)
    await coordinator.drain()
    assert repr(token)


async def test_unhashable_arguments(coordinator: Coordinator) -> None:
    arguments: list[Any] = [[], {}, set(), bytearray(b"x"), slice(1), [[[]]]]
    for argument in arguments:
        assert await same(argument) is argument
    results = await same.map(arguments)
    assert all(result is argument for result, argument in zip(results, arguments, strict=True))


async def test_huge_arguments_are_not_copied(coordinator: Coordinator) -> None:
    blob, table = bytearray(64 << 20), dict.fromkeys(range(200_000))
    listed = [blob] * 200_000
    tracemalloc.start()
    try:
        for argument in (blob, table, listed):
            assert await same(argument, named=argument) is argument
            assert (await same.map([argument]))[0] is argument
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


async def test_a_list_may_change_until_the_function_looks(
    single: Coordinator,
) -> None:
    hold, values = threading.Event(), [1]
    held = single.submit(hold.wait, 20)
    token = single.submit(sum, values)
    values.append(2)
    hold.set()
    assert await token == 3
    await held


async def test_a_recursive_argument(coordinator: Coordinator) -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert await same(loop) is loop


async def test_very_many_arguments(coordinator: Coordinator) -> None:
    assert await coordinator.submit(lambda *args: len(args), *range(100_000)) == 100_000
    names = {f"name{i}": i for i in range(10_000)}
    assert await coordinator.submit(lambda **named: len(named), **names) == 10_000


async def test_arguments_are_let_go_when_the_function_has_returned(
    coordinator: Coordinator,
) -> None:
    class Big:
        pass

    refs: list[weakref.ref[Any]] = []

    def big() -> Big:
        made = Big()
        refs.append(weakref.ref(made))
        return made

    def look(*args: Any, **named: Any) -> int:
        return len(args) + len(named)

    token = coordinator.submit(look, big(), big(), named=big())
    assert await token == 3
    await coordinator.aclose()
    assert [ref() for ref in refs] == [None] * 3
    assert token.result() == 3


async def test_arguments_of_a_failure_are_held_by_its_traceback_alone(
    coordinator: Coordinator,
) -> None:
    class Big:
        pass

    def fail(_: Any) -> NoReturn:
        raise LookupError("gone")

    made = Big()
    ref = weakref.ref(made)
    token = coordinator.submit(fail, made)
    del made
    with pytest.raises(LookupError) as caught:
        await token
    await coordinator.aclose()
    assert ref() is not None
    error = caught.value
    del caught, token
    error.__traceback__ = None
    del error
    gc.collect()
    assert ref() is None
