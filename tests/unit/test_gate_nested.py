"""Functions that wait for tokens: they never block each other, unless in a true cycle, which says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    TokenExpired,
    TokenKilled,
    TokenState,
    gather,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Ended, Gate, NewCoordinator, Other

TIMEOUT = 20.0


# -- no cycle --------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 10, 1_000])
async def test_any_depth_on_one_worker(
    single: Coordinator, name: str, depth: int, ended: Ended
) -> None:
    @task_token_guard(name)
    def down(levels: int) -> int:
        return 1 + down(levels - 1).result() if levels else 0

    assert (await ended(single, down(depth))).result() == depth


async def test_a_limit_for_each_level(single: Coordinator, name: str) -> None:
    """Each operation is full with the calls above it; those below have limits of their own."""
    levels: list[Any] = []

    def at_level(level: int) -> int:
        return 1 + levels[level + 1](level + 1).result() if level < 19 else 1

    for level in range(20):
        body = _renamed(at_level, f"level{level}")
        levels.append(task_token_guard(f"{name} {level}", limit=1)(body))
    tokens = [levels[0](0) for _ in range(30)]
    assert await asyncio.wait_for(gather(*tokens), TIMEOUT) == [20] * 30


def _renamed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return function(*args)

    call.__qualname__ = name
    return call


@pytest.mark.parametrize("workers", [1, 2, 8])
async def test_layers_under_load(new_coordinator: NewCoordinator, name: str, workers: int) -> None:
    """Calls go down only, never round in a circle: whoever reports a deadlock is wrong."""
    coordinator = new_coordinator(thread_workers=workers)

    @task_token_guard(f"{name} low", limit=1, key=lambda i: i % 3)
    def low(i: int) -> int:
        return i

    @task_token_guard(f"{name} middle", limit=2)
    def middle(i: int) -> int:
        return sum(gather(low(i), low(i + 1)).result())

    @task_token_guard(f"{name} high", limit=3, key=lambda i: i % 4)
    def high(i: int) -> int:
        return sum(middle.map([i, i])) + low(i).result()

    with use(coordinator):
        tokens = [high(i) for i in range(100)]
    results = await asyncio.wait_for(asyncio.gather(*tokens), 2 * TIMEOUT)
    assert results == [2 * (2 * i + 1) + i for i in range(100)]


@pytest.mark.parametrize("policy", [{"limit": 1}, {"key": lambda _: 1}], ids=["limit", "key"])
async def test_a_place_that_is_taken_is_waited_for(
    coordinator: Coordinator, gate: Gate, name: str, policy: dict[str, Any], other: Other
) -> None:
    inner = task_token_guard(f"{name}, inner", **policy)(gate)
    first = inner("first")
    await gate.entered()

    @task_token_guard(name)
    def outer(i: int) -> Any:
        return inner(i).result()

    tokens = [outer(i) for i in range(8)]
    assert await gather(*[other() for _ in range(20)]) == ["other"] * 20
    assert gate.inside == 1, "a worker that waits has not minded limit or key"
    gate.open()
    assert await gather(first, *tokens) == ["first", *range(8)]
    assert gate.most_inside == 1


async def test_a_paused_one_is_no_deadlock(
    single: Coordinator, gate: Gate, name: str, other: Other
) -> None:
    inner = task_token_guard(f"{name}, inner", limit=1)(gate)
    single.pause(inner)

    @task_token_guard(name, limit=1)
    def outer() -> Any:
        return inner("done").result()

    tokens = [outer() for _ in range(3)]
    assert await other() == "other"
    assert gate.calls == 0
    gate.open()
    single.resume(inner)
    assert await gather(*tokens) == ["done"] * 3


async def test_one_that_waits_with_a_timeout_is_no_deadlock(single: Coordinator, name: str) -> None:
    @task_token_guard(name, limit=1)
    def outer(again: bool) -> str:
        if not again:
            return "inner"
        nested = outer(False)
        with pytest.raises(TimeoutError, match="has not ended"):
            nested.result(timeout=0.01)
        return "outer"

    assert await outer(True) == "outer"
    await single.drain()
    assert single.stats().operations[name].completed == 2


async def test_one_that_expires_is_no_deadlock(
    single: Coordinator, name: str, ended: Ended
) -> None:
    @task_token_guard(name, limit=1)
    def outer(again: bool) -> str:
        if again:
            with pytest.raises(TokenExpired):
                outer.options(timeout=0.02)(False).result()
        return "fine"

    assert (await ended(single, outer(True))).result() == "fine"


async def test_a_place_of_somebody_who_will_return_is_no_deadlock(
    coordinator: Coordinator, gate: Gate, name: str, other: Other
) -> None:
    """One of the two places is held by who waits, the other by who goes on sooner or later."""

    @task_token_guard(name, limit=2)
    def work(what: str) -> Any:
        if what == "wait":
            return work("end").result()
        return gate() if what == "hold" else what

    holder = work("hold")
    await gate.entered()
    waiter = work("wait")
    assert await gather(*[other() for _ in range(20)]) == ["other"] * 20
    assert waiter.state is TokenState.EXECUTING
    gate.open()
    assert await gather(*[holder, waiter]) == [None, "end"]


async def test_what_can_still_be_discarded_from_outside(
    single: Coordinator, gate: Gate, name: str, other: Other
) -> None:
    inner = task_token_guard(f"{name}, inner")(gate)
    single.pause(inner)

    @task_token_guard(name)
    def outer() -> str:
        try:
            inner().result()
        except TokenKilled:
            return "killed"
        return "ran"

    token = outer()
    assert await other() == "other"
    assert single.discard(inner) == 1
    assert await token == "killed"
    single.resume(inner)


async def test_two_coordinators_that_call_each_other(
    new_coordinator: NewCoordinator, name: str, ended: Ended
) -> None:
    here, there = (new_coordinator(thread_workers=1) for _ in range(2))

    @task_token_guard(name)
    def down(levels: int) -> int:
        where = here if levels % 2 else there
        return 1 + down.options(coordinator=where)(levels - 1).result() if levels else 0

    token = down.options(coordinator=here)(20)
    assert (await ended(here, token)).result() == 20
