"""`kill` and `kill_operation`: tokens ended by operators, in every state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tokengate import Coordinator, TokenKilled, TokenState, current_token, gather, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, Other, Until

TIMEOUT = 20.0


async def test_kill_by_number_in_every_state(
    single: Coordinator, gate: Gate, name: str, until: Until
) -> None:
    guarded = task_token_guard(name)(gate)
    executing = guarded("executing")
    await gate.entered()
    admitted, *_, waiting = tokens = [guarded(i) for i in range(10)]
    for token in (waiting, admitted, executing):
        assert single.kill(token.id, f"not {token.id}")
        assert token.state is TokenState.KILLED
        with pytest.raises(TokenKilled, match=f"not {token.id}") as told:
            await token
        assert told.value.reason == f"not {token.id}"
        assert not single.kill(token.id, "again")
    assert executing.abandoned
    assert not waiting.abandoned
    gate.open()
    assert await gather(*tokens[1:-1]) == list(range(1, 9))
    assert not single.kill(tokens[1].id, "too late")
    await until(lambda: not executing.abandoned)
    assert gate.calls == 9


async def test_kill_of_numbers_that_no_token_has(coordinator: Coordinator, other: Other) -> None:
    assert await other(1) == 1
    for number in (0, -1, 2, 10**6, 2**63, 2**64, 2**64 + 1, 10**30):
        assert coordinator.kill(number, "nobody") is False
    for wrong in ("1", 1.0, None, True):
        with pytest.raises(TypeError, match="token_id="):
            coordinator.kill(wrong, "nobody")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason="):
        coordinator.kill(1, None)  # type: ignore[arg-type]


async def test_kill_from_a_worker_and_by_the_function_itself(
    coordinator: Coordinator, gate: Gate, name: str, until: Until
) -> None:
    victim = task_token_guard(name)(gate)(1)
    await gate.entered()
    assert await coordinator.submit(coordinator.kill, victim.id, "from a worker") is True
    with pytest.raises(TokenKilled, match="from a worker"):
        await victim
    gate.open()

    @task_token_guard(f"{name}, suicide")
    def end_myself() -> str:
        token = current_token()
        assert token is not None
        assert coordinator.kill(token.id, "myself")
        return "dropped"

    token = end_myself()
    with pytest.raises(TokenKilled, match="myself"):
        await token
    await until(lambda: not token.abandoned)
    assert token.state is TokenState.KILLED


async def test_kill_a_function_that_waits_for_another(
    single: Coordinator, gate: Gate, name: str, until: Until
) -> None:
    """Both functions are on one worker's stack; either can be killed by its number."""
    inner = task_token_guard(f"{name}, inner")(gate)
    numbers: list[int] = []
    caught: list[BaseException] = []

    @task_token_guard(name)
    def outer() -> None:
        nested = inner()
        numbers.append(nested.id)
        try:
            nested.result()
        except TokenKilled as error:
            caught.append(error)

    token = outer()
    await gate.entered()
    assert single.kill(token.id, "outer")
    assert single.kill(numbers[0], "inner")
    with pytest.raises(TokenKilled, match="outer"):
        await token
    gate.open()
    await until(lambda: not token.abandoned)
    assert [str(error) for error in caught] == ["inner"]


async def test_kill_operation(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, limit=2)(gate)
    executing = [guarded(i) for i in range(2)]
    await gate.entered(2)
    waiting = [guarded(i) for i in range(5)]
    untouched = coordinator.submit(gate, "untouched")
    await gate.entered()
    assert coordinator.kill_operation(name, "enough of it") == 7
    for token in (*executing, *waiting):
        with pytest.raises(TokenKilled, match="enough of it"):
            await token
    assert [token.abandoned for token in executing] == [True, True]
    assert coordinator.kill_operation(guarded) == 0
    after = guarded("after")
    assert after.state is TokenState.WAITING, "abandoned runs keep their places"
    gate.open()
    assert await gather(*[untouched, after]) == ["untouched", "after"]


async def test_kill_operation_of_one_that_has_not_run(
    coordinator: Coordinator, name: str, other: Other
) -> None:
    guarded = task_token_guard(name)(other.__wrapped__)
    assert coordinator.kill_operation(guarded) == 0
    assert coordinator.kill_operation(name, "nothing") == 0
    await asyncio.wait_for(coordinator.drain(guarded), TIMEOUT)
