"""Policies inside `inline`: what may not start waits, and runs in the thread that lets it."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    GateFull,
    Token,
    TokenDeadlock,
    TokenExpired,
    TokenState,
    checkpoint,
    deadline,
    task_token_guard,
)
from tokengate.testing import inline

if TYPE_CHECKING:
    from tests.conftest import Gate


def here() -> int:
    return threading.get_ident()


def test_what_is_paused_waits_and_resume_runs_it_in_order(
    coordinator: Coordinator, name: str
) -> None:
    seen: list[Any] = []

    @task_token_guard(name)
    def note(value: int) -> int:
        seen.append((value, here()))
        return value

    with inline():
        coordinator.pause(note)
        tokens = [note(value) for value in range(50)]
        assert {token.state for token in tokens} == {TokenState.WAITING}
        tokens[7].cancel()
        coordinator.pause()
        coordinator.resume(note)
        assert seen == []
        coordinator.resume()
        assert all(token.done() for token in tokens)
    assert seen == [(value, here()) for value in range(50) if value != 7]
    assert coordinator.stats().totals.waiting == 0


def test_what_is_resumed_from_outside_runs_on_workers(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name)(here)
    with inline():
        coordinator.pause(guarded)
        token = guarded()
    coordinator.resume(guarded)
    assert token.result(20) != here()


def test_a_limit_is_kept_and_its_place_goes_to_who_waits(
    coordinator: Coordinator, name: str
) -> None:
    order: list[str] = []

    @task_token_guard(name, limit=1)
    def nested(depth: int) -> Token[Any] | None:
        order.append(f"enter {depth}")
        inner = nested(depth - 1) if depth else None
        assert inner is None or inner.state is TokenState.WAITING
        order.append(f"leave {depth}")
        return inner

    with inline():
        token: Any = nested(2)
        while token is not None:
            assert token.done()
            token = token.result()
    assert order == ["enter 2", "leave 2", "enter 1", "leave 1", "enter 0", "leave 0"]


def test_a_raised_limit_runs_what_waits(coordinator: Coordinator, name: str) -> None:
    @task_token_guard(name, limit=1)
    def outer(nested: bool) -> int:
        if nested:
            token = outer(False)
            assert not token.done()
            coordinator.configure(outer, limit=2)
            assert token.result() == here()
        return here()

    with inline():
        assert outer(True).result() == here()


@pytest.mark.parametrize("on_loop", [False, True])
def test_waiting_for_ones_own_place_is_told(
    coordinator: Coordinator, name: str, on_loop: bool
) -> None:
    @task_token_guard(name, limit=1)
    def selfish(depth: int) -> int:
        return selfish(depth - 1).result() if depth else 0

    async def main() -> None:
        with pytest.raises(TokenDeadlock):
            await selfish(1)

    with inline():
        if on_loop:
            asyncio.run(main())
        else:
            with pytest.raises(TokenDeadlock):
                selfish(1).result()
    assert coordinator.stats().totals.completed == 1


def test_a_deadlock_across_coordinators_is_told(
    coordinator: Coordinator, single: Coordinator, name: str
) -> None:
    @task_token_guard(name, limit=1)
    def outer(depth: int) -> Any:
        return coordinator.submit(inner).result() if depth else 0

    def inner() -> Any:
        return outer.options(coordinator=single)(0).result()

    with inline():
        token = outer(1)
    with pytest.raises(TokenDeadlock):
        token.result()


def test_the_key_is_asked_for_and_kept(coordinator: Coordinator, name: str) -> None:
    keys: list[Any] = []
    inner: list[Token[Any]] = []

    def key(account: str, nested: bool = False) -> str:
        keys.append(account)
        return account

    @task_token_guard(name, key=key)
    def transfer(account: str, nested: bool = False) -> str:
        if nested:
            inner.append(transfer(account))
            inner.append(transfer("another"))
            assert [token.state.name for token in inner] == ["WAITING", "COMPLETED"]
        return account

    with inline():
        assert transfer("ada", True).result() == "ada"
        assert inner[0].result() == "ada"
    assert keys == ["ada", "ada", "another"]


def test_a_key_that_raises_fails_the_token(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, key=lambda: 1 // 0)(here)
    with inline():
        token = guarded()
    with pytest.raises(ZeroDivisionError):
        token.result()


def test_a_full_queue_refuses(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, max_waiting=1)(here)
    with inline():
        assert [guarded().result() for _ in range(5)] == [here()] * 5
        coordinator.pause(guarded)
        first, second = guarded(), guarded()
        with pytest.raises(GateFull):
            second.result()
        coordinator.resume(guarded)
        assert first.result() == here()


def test_a_deadline_that_has_passed_expires_unrun(coordinator: Coordinator, name: str) -> None:
    called: list[None] = []
    guarded = task_token_guard(name)(lambda: called.append(None))
    with inline():
        with deadline(0):
            token = guarded()
            tokens = list(guarded.map([], tokens=True))
        assert token.state is TokenState.EXPIRED
        with pytest.raises(TokenExpired):
            token.result()
    assert called == tokens == []


@pytest.mark.parametrize("limit", ["timeout", "run_timeout"])
def test_a_deadline_that_passes_meanwhile_ends_the_token(
    coordinator: Coordinator, name: str, limit: Any
) -> None:
    rounds: list[None] = []

    @task_token_guard(name, **{limit: 0.01})
    def endless() -> None:
        while True:
            checkpoint()
            rounds.append(None)

    with inline():
        token = endless()
    assert token.state is TokenState.EXPIRED
    assert not token.abandoned
    assert rounds
    assert coordinator.stats().totals.abandoned_now == 0


def test_a_map_of_what_is_paused(coordinator: Coordinator, name: str) -> None:
    async def main() -> None:
        guarded = task_token_guard(name)(lambda n: (n, here()))
        coordinator.pause(guarded)
        mapping = asyncio.ensure_future(collect(guarded.map(range(3))))
        while coordinator.stats().operations[name].waiting < 3:
            await asyncio.sleep(0)
        coordinator.resume(guarded)
        assert await mapping == [(n, here()) for n in range(3)]

    async def collect(call: Any) -> list[Any]:
        return [each async for each in call]

    with inline():
        asyncio.run(main())


async def test_beside_calls_that_workers_run(
    coordinator: Coordinator, gate: Gate, name: str, until: Callable[..., Any]
) -> None:
    """The limit is one, whoever runs: what is called inline waits for the worker's run."""
    guarded = task_token_guard(name, limit=1)(gate)
    outside = guarded("worker")
    await gate.entered()
    with inline():
        inside = guarded("inline")
        assert inside.state is TokenState.WAITING
        gate.open()
        assert await outside == "worker"
        assert await inside == "inline"


def test_kill_and_dump_know_it(coordinator: Coordinator, name: str) -> None:
    told = io.StringIO()

    @task_token_guard(name)
    def function() -> None:
        coordinator.dump(told)
        assert coordinator.kill_operation(name) == 1

    with inline():
        token = function()
    assert token.state is TokenState.KILLED
    assert name in told.getvalue()
    assert "in function" in told.getvalue()
