"""`pause`, `resume`, `discard`, `drain`, `kill` and `kill_operation`, at run time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    CoordinatorStopped,
    Token,
    TokenKilled,
    TokenState,
    gather,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate, Other, OthersRun, Until

TIMEOUT = 20.0


# -- pause, resume ---------------------------------------------------------------------------------


async def test_nothing_of_a_paused_operation_starts(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name)(gate)
    executing = guarded("executing")
    await gate.entered()
    coordinator.pause(name)
    tokens = [guarded(i) for i in range(10)]
    await others_run()
    assert gate.calls == 1
    assert {token.state for token in tokens} == {TokenState.WAITING}
    gate.open()
    assert await executing == "executing", "what executes goes on"
    await others_run()
    assert gate.calls == 1
    coordinator.resume(guarded)
    assert await gather(*tokens) == list(range(10))


async def test_it_holds_back_what_was_admitted_already(
    single: Coordinator, new_gate: NewGate, name: str, others_run: OthersRun
) -> None:
    hold, gate = new_gate(), new_gate()
    guarded = task_token_guard(name)(gate)
    held = single.submit(hold)
    await hold.entered()
    tokens = [guarded(i) for i in range(5)]
    single.pause(guarded)
    hold.open()
    await held
    await others_run()
    assert gate.calls == 0
    assert single.stats().operations[name].waiting == 5
    gate.open()
    single.resume(guarded)
    assert await gather(*tokens) == list(range(5))


async def test_the_order_is_kept(single: Coordinator, name: str) -> None:
    seen: list[int] = []
    guarded = task_token_guard(name)(seen.append)
    tokens = []
    for i in range(200):
        tokens.append(guarded(i))
        if i % 20 == 3:
            single.pause(guarded)
        elif i % 20 == 13:
            await asyncio.sleep(0)
            single.resume(guarded)
    single.resume(guarded)
    await gather(*tokens)
    assert seen == list(range(200))


async def test_all_operations(
    coordinator: Coordinator, gate: Gate, name: str, other: Other
) -> None:
    coordinator.pause()
    tokens = [task_token_guard(name)(gate)(0), coordinator.submit(gate, 1), other(2)]
    assert {token.state for token in tokens} == {TokenState.WAITING}
    gate.open()
    coordinator.resume()
    assert await gather(*tokens) == [0, 1, 2]


async def test_paused_by_name_stays_so_until_resumed_by_name(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun, other: Other
) -> None:
    gate.open()
    guarded = task_token_guard(name)(gate)
    coordinator.pause(guarded)
    coordinator.pause()
    token = guarded(1)
    coordinator.resume()
    await others_run()
    assert gate.calls == 0
    coordinator.pause()
    coordinator.resume(guarded)
    held = other()
    assert (token.state, held.state) == (TokenState.WAITING, TokenState.WAITING)
    coordinator.resume()
    assert await gather(*[token, held]) == [1, "other"]


async def test_twice_is_once(coordinator: Coordinator, name: str, other: Other) -> None:
    guarded = task_token_guard(name)(other.__wrapped__)
    coordinator.resume(guarded)
    coordinator.resume()
    for _ in range(2):
        coordinator.pause(guarded)
    token = guarded(1)
    coordinator.resume(guarded)
    assert await token == 1


async def test_workers_in_need_of_a_paused_token_wait_for_its_turn(
    single: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    """Not even a worker that waits for it runs it."""
    gate.open()
    guarded = task_token_guard(name)(gate)
    single.pause(guarded)

    @task_token_guard(f"{name}, outer")
    def outer() -> Any:
        return guarded("inner").result()

    token = outer()
    await others_run()
    assert gate.calls == 0
    single.resume(guarded)
    assert await token == "inner"


# -- drain -----------------------------------------------------------------------------------------


async def test_drain_waits_for_what_is_paused(
    coordinator: Coordinator, name: str, others_run: OthersRun, other: Other
) -> None:
    guarded = task_token_guard(name)(other.__wrapped__)
    coordinator.pause(guarded)
    token = guarded(1)
    draining = asyncio.create_task(coordinator.drain(guarded))
    everything = asyncio.create_task(coordinator.drain())
    await others_run()
    assert not draining.done()
    assert not everything.done()
    coordinator.resume(guarded)
    await asyncio.wait_for(asyncio.gather(draining, everything), TIMEOUT)
    assert token.done()


@pytest.mark.parametrize("how", ["discard", "kill_operation"])
async def test_drain_ends_with_what_is_thrown_away(
    coordinator: Coordinator, name: str, how: str, other: Other
) -> None:
    guarded = task_token_guard(name)(other.__wrapped__)
    coordinator.pause(guarded)
    tokens = [guarded(i) for i in range(5)]
    draining = asyncio.create_task(coordinator.drain(guarded))
    await asyncio.sleep(0)
    assert getattr(coordinator, how)(name) == 5
    await asyncio.wait_for(draining, TIMEOUT)
    assert all(isinstance(token.exception(), TokenKilled) for token in tokens)
    coordinator.resume(guarded)


# -- discard ---------------------------------------------------------------------------------------


async def test_discard_ends_what_has_not_started(
    single: Coordinator, gate: Gate, name: str, other: Other
) -> None:
    guarded = task_token_guard(name)(gate)
    executing = guarded("executing")
    await gate.entered()
    tokens = [guarded(i) for i in range(20)]
    untouched = other(1)
    assert single.discard(name) == 20
    assert {token.state for token in tokens} == {TokenState.KILLED}
    with pytest.raises(TokenKilled, match="discard"):
        await tokens[0]
    assert single.discard(guarded) == 0
    assert executing.state is TokenState.EXECUTING
    gate.open()
    assert await gather(*[executing, untouched]) == ["executing", 1]
    assert gate.calls == 1
    assert single.stats().operations[name].killed == 20


async def test_discard_of_all(single: Coordinator, gate: Gate, name: str, other: Other) -> None:
    executing = single.submit(gate, "executing")
    await gate.entered()
    tokens = [task_token_guard(name)(gate)(1), single.submit(gate, 2), other(3)]
    assert single.discard() == 3
    assert all(isinstance(token.exception(), TokenKilled) for token in tokens)
    gate.open()
    assert await executing == "executing"


async def test_discard_of_an_operation_that_has_not_run(
    coordinator: Coordinator, name: str, other: Other
) -> None:
    guarded = task_token_guard(name)(other.__wrapped__)
    assert coordinator.discard(guarded) == 0
    assert coordinator.discard() == 0
    assert await guarded(1) == 1


# -- stop ------------------------------------------------------------------------------------------


def test_stop_ends_what_is_paused(
    new_coordinator: NewCoordinator, name: str, capfd: pytest.CaptureFixture[str], other: Other
) -> None:
    coordinator = new_coordinator(name="pausing")
    guarded = task_token_guard(name)(other.__wrapped__).options(coordinator=coordinator)
    coordinator.pause(guarded)
    tokens = [guarded(i) for i in range(7)]
    coordinator.stop(timeout=0.05)
    assert {token.state for token in tokens} == {TokenState.KILLED}
    assert {type(token.exception()) for token in tokens} == {CoordinatorStopped}
    told = capfd.readouterr().err
    assert "pausing" in told
    assert "7 waiting tokens were killed" in told


@pytest.mark.parametrize("paused", ["before", "during"])
async def test_resumed_while_it_stops_they_run(
    new_coordinator: NewCoordinator, gate: Gate, name: str, paused: str, until: Until
) -> None:
    coordinator = new_coordinator(thread_workers=1)
    guarded = task_token_guard(name)(gate).options(coordinator=coordinator)
    tokens: list[Token[Any]] = [guarded(i) for i in range(5)]
    await gate.entered()
    if paused == "before":
        coordinator.pause(guarded)
    stopping = asyncio.create_task(coordinator.aclose(timeout=TIMEOUT))
    await until(lambda: coordinator.stopped)
    if paused == "during":
        coordinator.pause(guarded)
    assert guarded("too late").state is TokenState.KILLED
    gate.let_pass()
    assert await tokens[0] == 0
    assert gate.calls == 1
    assert not stopping.done()
    gate.open()
    coordinator.resume(guarded)
    await stopping
    assert await asyncio.gather(*tokens) == list(range(5))


async def test_stop_with_what_waits_cancelled_does_not_wait_for_the_paused(
    new_coordinator: NewCoordinator,
    other: Other,
) -> None:
    coordinator = new_coordinator()
    coordinator.pause()
    with use(coordinator):
        tokens = [other(i) for i in range(5)]
    await asyncio.wait_for(coordinator.aclose(timeout=60, cancel_waiting=True), TIMEOUT)
    assert {type(token.exception()) for token in tokens} == {CoordinatorStopped}


def test_from_many_threads_at_once(coordinator: Coordinator, name: str, other: Other) -> None:
    """Whatever operators do at the same time, each token ends once and the gate is left open."""
    guarded = task_token_guard(name)(other.__wrapped__)
    end = threading.Event()
    ended = [0, 0]

    def operate(number: int) -> None:
        while not end.is_set():
            coordinator.pause(guarded)
            ended[number] += coordinator.discard(guarded) if number else 0
            coordinator.resume(guarded)

    operators = [threading.Thread(target=operate, args=(i,)) for i in range(2)]
    for operator in operators:
        operator.start()
    try:
        tokens = [guarded(i) for i in range(3_000)]
        states = [token.exception(TIMEOUT) is None for token in tokens]
    finally:
        end.set()
        for operator in operators:
            operator.join(TIMEOUT)
    coordinator.resume(guarded)
    assert states.count(False) == sum(ended)
    assert guarded(1).result(TIMEOUT) == 1


@pytest.mark.parametrize("newcomers_first", [False, True])
def test_discard_takes_what_waits_and_not_what_comes_in_its_place(
    coordinator: Coordinator, gate: Gate, name: str, newcomers_first: bool
) -> None:
    """Also of an operation of which each that ends is followed by another call."""
    names = [f"new {name}", f"old {name}"]
    if not newcomers_first:
        names.reverse()
    guards = {each[:3]: task_token_guard(each)(gate) for each in names}
    with use(coordinator):
        coordinator.pause()
        waiting = [guards[each[:3]](i) for each in names for i in range(200)]
        more: list[Token[Any]] = []
        for token in waiting:
            if token.operation_type.startswith("new"):
                token.watch_return(lambda: more.append(coordinator.submit(guards["new"], 0)))
        assert coordinator.discard() >= len(waiting)
        assert {token.state for token in waiting} == {TokenState.KILLED}
        assert len(more) == 200
        coordinator.discard()
        coordinator.resume()
