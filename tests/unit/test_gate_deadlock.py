"""Functions that wait for each other in a circle: `TokenDeadlock` says so instead of hanging."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    TokenDeadlock,
    TokenState,
    as_completed,
    current_token,
    gather,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Ended, NewCoordinator, NewGate, Until

TIMEOUT = 20.0


@pytest.mark.parametrize("policy", [{"limit": 1}, {"key": lambda _: 1}], ids=["limit", "key"])
@pytest.mark.parametrize("workers", [1, 4])
async def test_its_own_place(
    new_coordinator: NewCoordinator, workers: int, name: str, policy: dict[str, Any], ended: Ended
) -> None:
    made: list[Any] = []

    @task_token_guard(name, **policy)
    def again(levels: int) -> int:
        if not levels:
            return 0
        made.append(again(levels - 1))
        result: int = made[0].result()
        return 1 + result

    with use(new_coordinator(thread_workers=workers)) as coordinator:
        token = again(1)
        with pytest.raises(TokenDeadlock) as told:
            await ended(coordinator, token)
            await token
    for named in (token, made[0]):
        assert f"Token {named.id} {name}" in str(told.value), "it names all of the cycle"
    await coordinator.drain()
    assert made[0].result() == 0, "the other one was not to blame, and runs"


async def test_its_own_token(single: Coordinator, name: str, ended: Ended) -> None:
    @task_token_guard(name)
    def myself() -> Any:
        token = current_token()
        assert token is not None
        return token.result()

    token = await ended(single, myself())
    with pytest.raises(TokenDeadlock, match=f"Token {token.id} {name}"):
        await token


WAITS: dict[str, Callable[[Any], Any]] = {
    "result": lambda f: f(False).result(),
    "exception": lambda f: f(False).exception(),
    "gather": lambda f: gather(f(False), f(False)).result(),
    "as_completed": lambda f: list(as_completed([f(False), f(False)])),
    "map of one": lambda f: list(f.map([False])),
    "map of two": lambda f: list(f.map([False, False])),
    "unordered map": lambda f: list(f.map([False, False], ordered=False)),
    "loop": lambda f: asyncio.run(_awaited(lambda: f(False))),
    "gather on a loop": lambda f: asyncio.run(_awaited(lambda: asyncio.gather(f(False), f(False)))),
    "map on a loop": lambda f: asyncio.run(_awaited(lambda: f.map([False, False]))),
}


async def _awaited(make: Callable[[], Any]) -> Any:
    return await make()


@pytest.mark.parametrize("how", WAITS)
async def test_every_way_to_wait(
    coordinator: Coordinator, name: str, how: str, ended: Ended
) -> None:
    @task_token_guard(name, limit=1)
    def work(wait: bool) -> None:
        if wait:
            WAITS[how](work)

    token = await ended(coordinator, work(True))
    with pytest.raises(TokenDeadlock):
        await token
    await coordinator.drain()


async def test_two_operations_that_wait_for_each_other(
    coordinator: Coordinator, name: str, ended: Ended
) -> None:
    meet = threading.Barrier(2)

    @task_token_guard(f"{name} one", limit=1)
    def one(wait: bool) -> str:
        if wait:
            meet.wait(TIMEOUT)
            two(False).result()
        return "one"

    @task_token_guard(f"{name} two", limit=1)
    def two(wait: bool) -> str:
        if wait:
            meet.wait(TIMEOUT)
            one(False).result()
        return "two"

    tokens = [one(True), two(True)]
    for token in tokens:
        await ended(coordinator, token)
    await coordinator.drain()
    (told,) = [error for token in tokens if (error := token.exception())]
    assert isinstance(told, TokenDeadlock), "exactly one is told, which frees the other"
    for named in (f"{name} one", f"{name} two"):
        assert named in str(told)


async def test_all_places_held_by_those_who_wait(
    coordinator: Coordinator, name: str, ended: Ended
) -> None:
    meet = threading.Barrier(3)

    @task_token_guard(name, limit=3)
    def work(wait: bool) -> str:
        if wait:
            meet.wait(TIMEOUT)
            work(False).result()
        return "fine"

    tokens = [work(True) for _ in range(3)]
    for token in tokens:
        await ended(coordinator, token)
    await coordinator.drain()
    errors = [error for token in tokens if (error := token.exception())]
    assert {type(error) for error in errors} == {TokenDeadlock}
    assert len(errors) == 1, "with one place free the others go on"


async def test_tokens_that_wait_for_each_other(
    coordinator: Coordinator, name: str, ended: Ended
) -> None:
    tokens: list[Any] = []
    both = threading.Event()

    @task_token_guard(name)
    def work(number: int) -> str:
        both.wait(TIMEOUT)
        tokens[1 - number].result()
        return "the other one"

    tokens += [work(0), work(1)]
    both.set()
    for token in tokens:
        await ended(coordinator, token)
    kinds = {type(token.exception()) for token in tokens}
    assert TokenDeadlock in kinds
    assert kinds <= {TokenDeadlock, type(None)}


async def test_an_abandoned_run_holds_the_place(
    coordinator: Coordinator, name: str, until: Until
) -> None:
    """It was cancelled, yet its function waits for a place that it holds itself."""
    caught: list[BaseException] = []
    go = threading.Event()

    @task_token_guard(name, limit=1)
    def work(wait: bool) -> None:
        if wait:
            go.wait(TIMEOUT)
            try:
                work(False).result()
            except TokenDeadlock as error:
                caught.append(error)

    token = work(True)
    await until(lambda: token.state is TokenState.EXECUTING)
    token.cancel()
    go.set()
    try:
        async with asyncio.timeout(5):
            await until(lambda: not token.abandoned)
    finally:
        coordinator.discard()
    await coordinator.drain()
    assert len(caught) == 1


async def test_room_in_a_queue_that_only_it_could_make(
    coordinator: Coordinator, name: str, ended: Ended
) -> None:
    @task_token_guard(name, limit=1, max_waiting=1, overflow="block")
    def work(more: bool) -> None:
        if more:
            work(False)
            work(False)

    token = await ended(coordinator, work(True))
    with pytest.raises(TokenDeadlock):
        await token
    await coordinator.drain()


async def test_the_worker_lives_on(
    single: Coordinator, new_gate: NewGate, name: str, ended: Ended
) -> None:
    @task_token_guard(name, limit=1)
    def work(wait: bool) -> str:
        if wait:
            with pytest.raises(TokenDeadlock):
                work(False).result()
        return "fine"

    for _ in range(20):
        assert (await ended(single, work(True))).result() == "fine"
    await single.drain()
    lane = single.stats().lanes["thread"]
    assert lane.workers == 1
