"""What can be seen: `dump`, the report of a stop, and the account of abandoned runs."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, TokenState, gather, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate, Same, Until

TIMEOUT = 20.0


def dumped(coordinator: Coordinator) -> str:
    file = io.StringIO()
    coordinator.dump(file)
    return file.getvalue()


# -- dump ------------------------------------------------------------------------------------------


async def test_each_executing_token_is_told(
    coordinator: Coordinator, gate: Gate, name: str
) -> None:
    def function_that_is_stuck(value: Any) -> Any:
        return gate(value)

    guarded = task_token_guard(name)(function_that_is_stuck)

    async def call() -> Any:
        return await guarded(1)

    caller = asyncio.create_task(call(), name="the caller's name")
    await gate.entered()
    second = coordinator.submit(gate, 2)
    await gate.entered()
    told = dumped(coordinator)
    assert "2 tokens executing, 0 abandoned" in told
    paragraph = next(each for each in told.split("\n\n") if name in each)
    assert f"Token 1 {name} EXECUTING" in paragraph
    assert "'the caller's name'" in paragraph or '"the caller\'s name"' in paragraph
    assert "function_that_is_stuck" in paragraph, "where it is"
    assert "test_gate_reports.py" in paragraph
    assert " s ago" in paragraph, "its age"
    assert f"Token {second.id} " in told
    gate.open()
    assert await asyncio.gather(*[caller, second]) == [1, 2]


@pytest.mark.parametrize("how", ["cancel", "kill", "expire"])
async def test_abandoned_ones_as_well(
    coordinator: Coordinator, gate: Gate, name: str, how: str, until: Until
) -> None:
    token = task_token_guard(name, run_timeout=0.01 if how == "expire" else None)(gate)()
    await gate.entered()
    if how != "expire":
        assert getattr(token, how)()
    await asyncio.wait([asyncio.ensure_future(token)])
    told = dumped(coordinator)
    assert "0 tokens executing, 1 abandoned" in told
    assert f"{token!r}" in told
    assert "abandoned" in repr(token)
    gate.open()
    await until(lambda: not token.abandoned)
    assert f"{token!r}" not in dumped(coordinator)
    assert token.cancelled() or token.exception()


async def test_functions_that_wait_for_others(single: Coordinator, gate: Gate, name: str) -> None:
    """Two functions on one worker's stack are two paragraphs."""

    @task_token_guard(name)
    def outer() -> Any:
        return single.submit(gate, 1).result()

    token = outer()
    await gate.entered()
    told = dumped(single)
    assert "2 tokens executing" in told
    assert repr(token) in told
    gate.open()
    assert await token == 1


def test_nothing_executes(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str], same: Same
) -> None:
    coordinator.pause()
    tokens = [coordinator.submit(same, i) for i in range(3)]
    assert "0 tokens executing, 0 abandoned, 3 waiting" in dumped(coordinator)
    coordinator.dump()
    assert "0 tokens executing" in capsys.readouterr().err
    coordinator.resume()
    assert [token.result(TIMEOUT) for token in tokens] == [0, 1, 2]


async def test_from_within_a_function(coordinator: Coordinator) -> None:
    told = await coordinator.submit(dumped, coordinator)
    assert "1 tokens executing" in told
    assert "in dumped" in told


def test_while_tokens_come_and_go(coordinator: Coordinator, name: str, same: Same) -> None:
    guarded = task_token_guard(name)(same)
    end = threading.Event()

    def churn() -> None:
        while not end.is_set():
            for token in [guarded.options(coordinator=coordinator)(i) for i in range(50)]:
                token.result(TIMEOUT)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            assert repr(coordinator) in dumped(coordinator)
    finally:
        end.set()
        thread.join(TIMEOUT)


# -- the report of a stop --------------------------------------------------------------------------


def test_a_stop_tells_of_what_it_abandons(
    new_coordinator: NewCoordinator, gate: Gate, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    coordinator = new_coordinator(name="reporting", thread_workers=2)

    def function_that_is_stuck() -> Any:
        return gate()

    guarded = task_token_guard(name, limit=2)(function_that_is_stuck)
    tokens = [guarded.options(coordinator=coordinator)() for _ in range(5)]
    gate.wait_entered(2)
    tokens[0].cancel()
    coordinator.stop(timeout=0.05)
    told = capfd.readouterr().err
    assert "reporting" in told
    assert "3 waiting tokens were killed" in told
    assert "2 functions still run" in told
    assert f"Token {tokens[0].id} {name} CANCELLED abandoned" in told
    assert f"Token {tokens[1].id} {name} EXECUTING" in told
    assert told.count("function_that_is_stuck") >= 2, "where each of them is"
    assert [token.state for token in tokens[1:]] == [TokenState.KILLED] * 4
    gate.open()


def test_a_stop_that_abandons_nothing_is_silent(
    new_coordinator: NewCoordinator, capfd: pytest.CaptureFixture[str], same: Same
) -> None:
    coordinator = new_coordinator()
    token = coordinator.submit(same, 1)
    coordinator.stop()
    assert token.result() == 1
    assert capfd.readouterr() == ("", "")


# -- the account of abandoned runs -----------------------------------------------------------------


async def test_they_are_counted_now_and_in_all(
    coordinator: Coordinator, new_gate: NewGate, name: str, until: Until
) -> None:
    gates = [new_gate() for _ in range(3)]

    def ledger() -> tuple[int, int, int]:
        stats = coordinator.stats()
        of = stats.operations[name]
        assert of.abandoned_now == stats.totals.abandoned_now
        return of.executing, of.abandoned_now, of.abandoned_total

    guarded = task_token_guard(name)(lambda number: gates[number]())
    tokens = [guarded(number) for number in range(3)]
    for gate in gates:
        await gate.entered()
    assert ledger() == (3, 0, 0)
    tokens[0].cancel()
    assert ledger() == (2, 1, 1)
    tokens[1].kill()
    assert ledger() == (1, 2, 2)
    gates[0].open()
    await until(lambda: not tokens[0].abandoned)
    await until(lambda: ledger() == (1, 1, 2))
    gates[2].open()
    await tokens[2]
    assert ledger() == (0, 1, 2)
    gates[1].open()
    await until(lambda: ledger() == (0, 0, 2))
    assert tokens[1].exception()


async def test_stuck_calls_do_not_eat_the_lane(
    coordinator: Coordinator, gate: Gate, name: str, until: Until, same: Same
) -> None:
    """Each worker that an abandoned run holds is replaced."""
    stuck = [task_token_guard(name, run_timeout=0.02)(gate)(i) for i in range(60)]
    await asyncio.wait([*map(asyncio.ensure_future, stuck)], timeout=TIMEOUT)
    assert {token.state for token in stuck} == {TokenState.EXPIRED}
    assert all(token.exception() for token in stuck)
    figures = coordinator.stats().operations[name]
    assert (figures.abandoned_now, figures.abandoned_total, figures.expired) == (60, 60, 60)
    await until(lambda: gate.inside == 60)  # the time of a run counts before its first instruction
    results = await gather(*[coordinator.submit(same, i) for i in range(100)])
    assert results == list(range(100))
    gate.open()
    await until(lambda: coordinator.stats().totals.abandoned_now == 0)
    await until(lambda: coordinator.stats().lanes["thread"].workers <= 4)


async def test_the_counters_tell_how_tokens_ended(coordinator: Coordinator, name: str) -> None:
    def work(fail: bool = False) -> None:
        if fail:
            raise LookupError

    guarded = task_token_guard(name, max_waiting=4)(work)
    await guarded()
    with pytest.raises(LookupError):
        await guarded(True)
    coordinator.pause(guarded)
    cancelled, killed, expired = guarded(), guarded(), guarded.options(timeout=0.01)()
    waiting = guarded()
    refused = guarded()
    assert coordinator.stats().operations[name].oldest_wait > 0
    cancelled.cancel()
    killed.kill()
    await asyncio.wait([asyncio.ensure_future(expired)])
    coordinator.configure(name, max_waiting=1, overflow="shed_oldest")
    last = guarded()
    for token in (killed, expired, waiting, refused):
        assert token.exception()
    coordinator.resume(guarded)
    await last
    figures = coordinator.stats().operations[name]
    assert figures.submitted == 8
    assert (figures.completed, figures.failed, figures.cancelled) == (2, 1, 1)
    assert (figures.expired, figures.killed) == (1, 3)
    assert (figures.rejected, figures.shed) == (1, 1)
    assert (figures.waiting, figures.admitted, figures.executing) == (0, 0, 0)
    assert (figures.abandoned_now, figures.abandoned_total, figures.oldest_wait) == (0, 0, 0.0)
    assert figures.run.total_count == 3, "of those whose function ran to its end"
    totals = coordinator.stats().totals
    assert (totals.rejected, totals.shed, totals.expired) == (1, 1, 1)
    plain = json.loads(json.dumps(coordinator.stats().as_dict()))
    for field in ("rejected", "shed", "expired", "abandoned_now", "abandoned_total"):
        assert plain["operations"][name][field] == getattr(figures, field)
        assert plain["totals"][field] == getattr(totals, field)
