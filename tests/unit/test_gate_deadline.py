"""`deadline`, `Token.deadline` and `remaining`, and `checkpoint`."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    Token,
    TokenCancelled,
    TokenExpired,
    TokenState,
    checkpoint,
    current_token,
    deadline,
    gather,
    task_token_guard,
)

if TYPE_CHECKING:
    from tests.conftest import Expires, Gate, Same, Until

TIMEOUT = 20.0


async def test_what_a_token_knows(
    coordinator: Coordinator, name: str, same: Same, expires: Expires
) -> None:
    guarded = task_token_guard(name, timeout=100)(same)
    coordinator.pause(guarded)
    before = time.monotonic()
    token, without = guarded(), guarded.options(timeout=None)()
    after = time.monotonic()
    assert token.deadline is not None
    assert before + 100 - 1e-3 <= token.deadline <= after + 100 + 1e-3
    remaining = token.remaining()
    assert remaining is not None
    assert 0 < remaining <= 100
    assert (without.deadline, without.remaining()) == (None, None)
    short = guarded.options(timeout=0.01)()
    await expires(short)
    assert short.remaining() == 0.0
    coordinator.resume(guarded)
    await gather(token, without)


async def test_a_block_sets_it_for_the_tokens_made_inside(
    coordinator: Coordinator, name: str, same: Same, expires: Expires
) -> None:
    guarded = task_token_guard(name)(same)
    coordinator.pause(guarded)
    with deadline(0.02):
        inside = guarded(1)
        (mapped,) = [asyncio.ensure_future(guarded.map([1, 2]))]
        submitted = coordinator.submit(same, 3)
        assert submitted.deadline is not None
        await asyncio.sleep(0)
    outside = guarded(4)
    assert outside.deadline is None
    await expires(inside)
    with pytest.raises(TokenExpired):
        await mapped
    await submitted
    coordinator.resume(guarded)
    assert await outside == 4


async def test_of_several_the_earliest_counts(
    coordinator: Coordinator, name: str, same: Same
) -> None:
    guarded = task_token_guard(name)(same)

    def seconds(token: Token[Any]) -> int:
        remaining = token.remaining()
        assert remaining is not None
        return math.ceil(remaining / 100) * 100

    with deadline(500):
        with deadline(300):
            assert seconds(guarded()) == 300
            assert seconds(guarded.options(timeout=100)()) == 100
            with deadline(900):
                assert seconds(guarded()) == 300, "an inner deadline cannot be later"
        assert seconds(guarded()) == 500
        assert seconds(guarded.options(timeout=None)()) == 500
        assert seconds(guarded.options(timeout=900)()) == 500
    assert guarded().deadline is None
    await coordinator.drain()


async def test_nested_calls_inherit_it(single: Coordinator, name: str) -> None:
    inner = task_token_guard(f"{name}, inner")(lambda: current_token())

    @task_token_guard(name)
    def outer() -> tuple[Any, Any]:
        return current_token(), inner().result()

    with deadline(100):
        token, nested = await outer()
    assert token.deadline == nested.deadline is not None
    token, nested = await outer()
    assert token.deadline is nested.deadline is None


async def test_a_nested_call_expires_with_it(
    coordinator: Coordinator, gate: Gate, name: str, expires: Expires
) -> None:
    caught: list[BaseException] = []
    returned = threading.Event()

    @task_token_guard(name)
    def outer() -> None:
        nested = coordinator.submit(gate)
        try:
            nested.result()
        except BaseException as error:
            caught.append(error)
        returned.set()

    with deadline(0.03):
        token = outer()
    await expires(token)
    assert gate.calls <= 1
    gate.open()
    await asyncio.to_thread(returned.wait, TIMEOUT)
    assert [type(error) for error in caught] == [TokenExpired]


async def test_tasks_started_inside_inherit_it(
    coordinator: Coordinator, name: str, same: Same
) -> None:
    guarded = task_token_guard(name)(same)

    async def call() -> Token[Any]:
        return guarded()

    async def other() -> float | None:
        await asyncio.sleep(0)
        return guarded().deadline

    with deadline(100):
        task = asyncio.create_task(call())
    unrelated = asyncio.create_task(other())
    assert (await task).deadline is not None
    assert await unrelated is None
    await coordinator.drain()


async def test_a_deadline_that_has_passed_already(
    coordinator: Coordinator, gate: Gate, name: str, expires: Expires
) -> None:
    guarded = task_token_guard(name)(gate)
    with deadline(0):
        token = guarded(1)
        assert token.state is TokenState.EXPIRED, "known at once"
        assert token.remaining() == 0.0
        await expires(token)
        results = await guarded.map([1, 2, 3], return_exceptions=True)
    assert [type(each) for each in results] == [TokenExpired] * 3
    with pytest.raises(TokenExpired), deadline(0):
        await guarded.map([1])
    assert gate.calls == 0
    figures = coordinator.stats().operations[name]
    assert figures.submitted == figures.expired
    assert figures.waiting == 0


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 10**12])
async def test_longer_than_anybody_lives(
    coordinator: Coordinator, name: str, seconds: float, same: Same
) -> None:
    guarded = task_token_guard(name, timeout=seconds, run_timeout=seconds)(same)
    assert await guarded(1) == 1
    with deadline(seconds):
        assert await guarded(2) == 2
        assert await guarded.options(timeout=seconds)(3) == 3


async def test_one_deadline_for_several_blocks(coordinator: Coordinator, same: Same) -> None:
    ten = deadline(10)
    with ten, ten:
        pass
    with ten:
        assert coordinator.submit(same).deadline is not None
    with pytest.raises(LookupError), ten:
        raise LookupError
    assert coordinator.submit(same).deadline is None
    await coordinator.drain()


# -- checkpoint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "kill", "expire"])
async def test_a_function_notices_that_its_token_has_ended(
    coordinator: Coordinator, name: str, how: str, until: Until
) -> None:
    caught: list[BaseException] = []
    begun = threading.Event()

    def work() -> None:
        checkpoint()  # not yet
        begun.set()
        waited = time.monotonic() + TIMEOUT
        while time.monotonic() < waited:
            try:
                checkpoint()
            except Exception:  # what functions with retries do
                caught.append(AssertionError("swallowed by `except Exception`"))
            except TokenCancelled as error:
                caught.append(error)
                raise

    token = task_token_guard(name, run_timeout=0.05 if how == "expire" else None)(work)()
    await until(begun.is_set)
    if how != "expire":
        assert getattr(token, how)()
    await asyncio.wait([asyncio.ensure_future(token)], timeout=TIMEOUT)
    await until(lambda: not token.abandoned)
    assert [type(error) for error in caught] == [TokenCancelled]
    assert name in str(caught[0])
    assert token.state.name.startswith({"cancel": "CANC", "kill": "KILL", "expire": "EXP"}[how])
    assert coordinator.stats().operations[name].failed == 0
    assert token.cancelled() or token.exception()


async def test_a_checkpoint_of_the_inner_function_asks_for_the_inner_token(
    single: Coordinator, name: str, until: Until
) -> None:
    @task_token_guard(f"{name}, inner")
    def inner() -> str:
        checkpoint()
        return "inner"

    @task_token_guard(name)
    def outer() -> str:
        token = current_token()
        assert token is not None
        token.cancel()
        result = inner().result()
        with pytest.raises(TokenCancelled):
            checkpoint()
        return str(result)

    token = outer()
    await asyncio.wait([asyncio.ensure_future(token)])
    assert token.cancelled()
    await until(lambda: not token.abandoned)
    await single.drain()
    assert single.stats().operations[f"{name}, inner"].completed == 1


def test_outside_a_token_a_checkpoint_does_nothing() -> None:
    checkpoint()
