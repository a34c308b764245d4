"""What a token held - function, arguments, result, error, loop - is let go when it has ended."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, Token, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate

TIMEOUT = 20.0


class Thing:
    """Something whose end can be watched."""


@task_token_guard
def give_back(thing: Any) -> Any:
    return thing


@task_token_guard
def keep_nothing(thing: Any) -> None: ...


@task_token_guard
def fail_with(thing: Any) -> None:
    raise LookupError(thing)


def gone(watched: weakref.ref[Any]) -> bool:
    """Whether it goes within the time. A worker may still be about to let go of it."""
    pause = threading.Event()
    for _ in range(2_000):
        if watched() is None:
            return True
        gc.collect()
        pause.wait(0.001)
    return False


def ended(way: str, single: Coordinator, gate: Gate, thing: Any) -> Token[Any]:
    """A token with that argument that has ended in that way."""
    if way == "refused":
        single.stop()
        token = keep_nothing(thing)
        single.start()
        return token
    blocking = single.submit(gate)
    gate.wait_entered()
    token = keep_nothing(thing)
    if way == "cancelled":
        token.cancel()
    elif way == "killed":
        token.kill("for the test")
    gate.open()
    blocking.result(TIMEOUT)
    if way == "completed":
        token.result(TIMEOUT)
    return token


@pytest.mark.parametrize("way", ["completed", "refused", "cancelled", "killed"])
def test_an_ended_token_holds_no_arguments(single: Coordinator, gate: Gate, way: str) -> None:
    thing = Thing()
    watched = weakref.ref(thing)
    token = ended(way, single, gate, thing)
    assert token.state.name == {"refused": "KILLED"}.get(way, way.upper())
    del thing
    assert gone(watched)


def test_the_result_goes_with_the_last_who_has_it(coordinator: Coordinator) -> None:
    token = give_back(Thing())
    watched = weakref.ref(token.result(TIMEOUT))
    assert watched() is not None
    del token
    assert gone(watched)


def test_a_result_nobody_took_goes_with_the_token(coordinator: Coordinator, gate: Gate) -> None:
    thing = Thing()
    watched = weakref.ref(thing)
    give_back(thing)
    del thing
    assert gone(watched)


def test_a_late_result_is_dropped(coordinator: Coordinator, gate: Gate) -> None:
    thing = Thing()
    watched = weakref.ref(thing)
    token = coordinator.submit(gate, thing)
    del thing
    gate.wait_entered()
    token.cancel()
    assert watched() is not None
    gate.open()
    assert gone(watched)
    assert token.cancelled()


def test_an_error_goes_with_its_token(coordinator: Coordinator) -> None:
    thing = Thing()
    watched = weakref.ref(thing)
    token = fail_with(thing)
    with pytest.raises(LookupError):
        token.result(TIMEOUT)
    del thing, token
    assert gone(watched)


def test_the_context_goes_with_the_call(coordinator: Coordinator) -> None:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    def call() -> tuple[Token[Any], weakref.ref[Any]]:
        thing = Thing()
        variable.set(thing)
        return give_back(1), weakref.ref(thing)

    token, watched = contextvars.copy_context().run(call)
    assert token.result(TIMEOUT) == 1
    assert gone(watched)


def test_callbacks_go_when_they_have_been_called(coordinator: Coordinator) -> None:
    async def main() -> tuple[Token[Any], weakref.ref[Any]]:
        thing = Thing()
        called = asyncio.Event()
        token = give_back(1)
        token.add_done_callback(lambda _, kept=thing: called.set())  # type: ignore[misc]
        await called.wait()
        return token, weakref.ref(thing)

    token, watched = asyncio.run(main())
    assert gone(watched)
    assert token.result() == 1


def test_loops_are_not_kept(coordinator: Coordinator, gate: Gate) -> None:
    async def main() -> tuple[weakref.ref[Any], Token[Any]]:
        await asyncio.gather(*[give_back(i) for i in range(100)])
        await give_back.map(range(100))
        pending = coordinator.submit(gate)
        pending.add_done_callback(lambda _: None)
        return weakref.ref(asyncio.get_running_loop()), pending

    watched, pending = asyncio.run(main())
    assert gone(watched)  # although one of its tokens is still executing
    gate.open()
    assert pending.result(TIMEOUT) is None


def test_tokens_with_waiters_on_a_loop_that_is_gone(coordinator: Coordinator, gate: Gate) -> None:
    async def main() -> list[weakref.ref[Any]]:
        tokens = [coordinator.submit(gate) for _ in range(100)]
        for token in tokens:
            token.add_done_callback(lambda _: None)
        return [weakref.ref(token) for token in tokens]

    watched = asyncio.run(main())
    gc.collect()
    gate.open()
    assert all(gone(each) for each in watched)


def test_a_guarded_function_can_go(coordinator: Coordinator) -> None:
    def make() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        def local(i: int) -> int:
            return i

        guarded = task_token_guard(local)
        assert guarded(1).result(TIMEOUT) == 1
        assert guarded.options(tags={"of": "a view"})(1).result(TIMEOUT) == 1
        return weakref.ref(local), weakref.ref(guarded)

    function, guarded = make()
    assert gone(guarded)
    assert gone(function)


def test_instances_with_guarded_methods_can_go(coordinator: Coordinator) -> None:
    class Service:
        @task_token_guard
        def method(self, i: int) -> int:
            return i

    service = Service()
    watched = weakref.ref(service)
    assert service.method(1).result(TIMEOUT) == 1
    assert list(service.method.map([1, 2])) == [1, 2]
    del service
    assert gone(watched)


def test_an_abandoned_map_leaves_nothing(coordinator: Coordinator, gate: Gate) -> None:
    things = [Thing() for _ in range(50)]
    watched = [weakref.ref(thing) for thing in things]
    iterator = iter(give_back.map(things, in_flight=10))
    next(iterator)
    del things
    assert sum(each() is not None for each in watched) > 0
    del iterator
    assert all(gone(each) for each in watched)


async def test_awaiting_leaves_no_cycles(coordinator: Coordinator) -> None:
    """Reference counting alone frees all of it: collections would stall the loop."""
    things: list[weakref.ref[Any]] = []

    async def one(make: Callable[[Any], Token[Any]]) -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        await make(thing)

    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await one(give_back)
            await one(keep_nothing)
        await asyncio.gather(*[one(give_back) for _ in range(20)])
        await coordinator.aclose()
        assert not any(each() is not None for each in things)
    finally:
        gc.enable()


def test_many_tokens_leave_no_objects(coordinator: Coordinator) -> None:
    async def main() -> None:
        await asyncio.gather(*[give_back(i) for i in range(2_000)])
        await give_back.map(range(2_000))
        await tokengate.gather(*[give_back(i) for i in range(2_000)])
        await asyncio.gather(*[fail_with(i) for i in range(500)], return_exceptions=True)
        tokens = [give_back(i) for i in range(500)]
        for token in tokens:
            token.cancel()

    def objects() -> int:
        gc.collect()
        return sum(type(each) is Token for each in gc.get_objects())

    asyncio.run(main())
    coordinator.stop()
    coordinator.start()
    tokens = objects()
    blocks = sys.getallocatedblocks()
    for _ in range(3):
        asyncio.run(main())
    coordinator.stop()
    assert objects() <= tokens
    # 19,500 tokens of several blocks each; a thousand is what interpreter caches may take
    assert sys.getallocatedblocks() - blocks < 1_000
