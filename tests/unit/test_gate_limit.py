"""`limit`: so many functions of an operation at once, counting those that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    Token,
    TokenExpired,
    TokenKilled,
    TokenState,
    gather,
    task_token_guard,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate, OthersRun, Until


async def test_never_more_at_once(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, limit=2)(gate)
    tokens = [guarded(i) for i in range(20)]
    await gate.entered(2)
    await others_run()
    assert gate.inside == 2
    figures = coordinator.stats().operations[name]
    assert (figures.executing, figures.waiting + figures.admitted) == (2, 18)
    gate.open()
    assert await gather(*tokens) == list(range(20))
    assert gate.most_inside == 2


async def test_a_limit_of_one_keeps_the_order(coordinator: Coordinator, name: str) -> None:
    seen: list[int] = []
    guarded = task_token_guard(name, limit=1)(seen.append)
    await gather(*[guarded(i) for i in range(300)])
    assert seen == list(range(300))


async def test_a_limit_beyond_the_workers(single: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, limit=100)(gate)
    gate.open()
    assert await gather(*[guarded(i) for i in range(50)]) == list(range(50))
    assert gate.most_inside == 1


async def test_all_ways_of_calling_count(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, limit=1)(gate)
    first = guarded("call")
    await gate.entered()
    view = guarded.options(tags={"of": "a view"})("view")
    submitted = coordinator.submit(guarded, "submitted")
    mapped = asyncio.ensure_future(guarded.map(["a", "b"]))
    from_thread = await asyncio.to_thread(coordinator.submit, guarded, "thread")
    await others_run()
    assert gate.calls == 1
    gate.open()
    assert await gather(*[first, view, submitted]) == ["call", "view", "submitted"]
    assert await mapped == ["a", "b"]
    assert await asyncio.to_thread(from_thread.result, 20) == "thread"
    assert gate.most_inside == 1


async def test_functions_of_one_operation_share_it(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    one = task_token_guard(name, limit=2)(gate)

    def second(value: int) -> Any:
        return gate(value)

    two = task_token_guard(name)(second)
    tokens = [each(i) for i in range(6) for each in (one, two)]
    await gate.entered(2)
    await others_run()
    assert gate.inside == 2
    gate.open()
    await gather(*tokens)
    assert gate.most_inside == 2


async def test_each_coordinator_has_its_own_places(
    new_coordinator: NewCoordinator, gate: Gate, name: str
) -> None:
    guarded = task_token_guard(name, limit=1)(gate)
    tokens = [guarded.options(coordinator=new_coordinator(thread_workers=2))(i) for i in (0, 1, 2)]
    await gate.entered(3)
    gate.open()
    assert await asyncio.gather(*tokens) == [0, 1, 2]


@pytest.mark.parametrize("how", ["cancel", "kill", "kill by number", "expire"])
async def test_an_abandoned_run_keeps_its_place(
    coordinator: Coordinator, gate: Gate, name: str, how: str, others_run: OthersRun
) -> None:
    run_timeout = 0.02 if how == "expire" else None
    guarded = task_token_guard(name, limit=1, run_timeout=run_timeout)(gate)
    first, second = guarded(1), guarded.options(run_timeout=None)(2)
    await gate.entered()
    if how == "cancel":
        first.cancel()
    elif how == "kill":
        first.kill("enough")
    elif how == "kill by number":
        assert coordinator.kill(first.id)
    with pytest.raises((asyncio.CancelledError, TokenKilled, TokenExpired)):
        await first
    assert first.abandoned
    await others_run()
    assert gate.calls == 1, "the abandoned run has lost its place"
    assert second.state is TokenState.WAITING
    gate.let_pass()
    await gate.entered()
    assert not first.abandoned
    gate.let_pass()
    assert await second == 2
    assert gate.most_inside == 1


def _raise(error: type[BaseException]) -> None:
    raise error("on purpose")


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
async def test_a_failing_function_gives_its_place_back(
    coordinator: Coordinator, name: str, error: type[BaseException]
) -> None:
    guarded = task_token_guard(name, limit=1)(_raise)
    tokens = [guarded(error) for _ in range(30)]
    await coordinator.drain()
    assert [token.state for token in tokens] == [TokenState.FAILED] * 30
    assert all(token.exception() for token in tokens)


async def test_places_survive_every_way_to_end(
    coordinator: Coordinator, new_gate: NewGate, name: str, until: Until, others_run: OthersRun
) -> None:
    """After tokens have ended in all ways, waiting and executing, all places are there again."""

    def call(body: Callable[[], Any]) -> Any:
        return body()

    guarded = task_token_guard(name, limit=3)(call)
    for round_number in range(10):
        gate = new_gate()
        executing = [guarded(gate) for _ in range(3)]
        await gate.entered(3)
        waiting = [guarded(gate) for _ in range(6)]
        doomed: list[Token[Any]] = [executing[round_number % 3], *waiting[::2]]
        for number, token in enumerate(doomed):
            assert token.cancel() if (number + round_number) % 2 else token.kill()
        gate.open()
        await asyncio.wait([*map(asyncio.ensure_future, (*executing, *waiting))])
    await until(lambda: coordinator.stats().totals.abandoned_now == 0)
    gate = new_gate()
    last = [guarded(gate) for _ in range(5)]
    await gate.entered(3)
    await others_run()
    assert gate.inside == 3
    gate.open()
    await gather(*last)


# -- changed while running -------------------------------------------------------------------------


async def test_raised_it_holds_at_once(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, limit=1)(gate)
    tokens = [guarded(i) for i in range(6)]
    await gate.entered()
    coordinator.configure(name, limit=3)
    await gate.entered(2)
    await others_run()
    assert gate.inside == 3
    coordinator.configure(guarded, limit=None)
    await gate.entered()  # as many as there are workers
    gate.open()
    assert await gather(*tokens) == list(range(6))
    assert gate.most_inside == 4


async def test_lowered_it_lets_those_finish_that_run(
    coordinator: Coordinator, gate: Gate, name: str, until: Until, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, limit=3)(gate)
    tokens = [guarded(i) for i in range(8)]
    await gate.entered(3)
    coordinator.configure(name, limit=1)
    gate.let_pass(2)
    await until(lambda: sum(token.done() for token in tokens) == 2)
    await others_run()
    assert gate.calls == 3, "more have started although one over the limit still runs"
    gate.let_pass()
    await gate.entered()
    await others_run()
    assert gate.inside == 1
    gate.open()
    assert await gather(*tokens) == list(range(8))


async def test_lowered_it_holds_for_what_was_admitted(
    coordinator: Coordinator, new_gate: NewGate, name: str, others_run: OthersRun
) -> None:
    """Tokens that lie ready for a worker have not started yet."""
    hold, gate = new_gate(), new_gate()
    held = [coordinator.submit(hold) for _ in range(4)]
    await hold.entered(4)
    guarded = task_token_guard(name)(gate)
    tokens = [guarded(i) for i in range(8)]
    coordinator.configure(name, limit=1)
    hold.open()
    await gather(*held)
    await gate.entered()
    await others_run()
    assert gate.inside == 1
    gate.open()
    assert await gather(*tokens) == list(range(8))
    assert gate.most_inside == 1


async def test_a_limit_declared_for_an_operation_that_has_not_run(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, limit=4)(gate)
    coordinator.configure(guarded, limit=1)
    tokens = [guarded(i) for i in range(3)]
    await gate.entered()
    await others_run()
    assert gate.inside == 1
    gate.open()
    await gather(*tokens)
    assert gate.most_inside == 1


# -- without a limit -------------------------------------------------------------------------------


async def test_stuck_calls_without_a_limit_leave_workers_to_others(
    new_coordinator: NewCoordinator, gate: Gate
) -> None:
    coordinator = new_coordinator()
    lane = coordinator.stats().lanes["thread"]
    stuck = [coordinator.submit(gate, i) for i in range(2 * lane.max_workers)]
    await gate.entered(lane.max_workers // 2)  # and more to come
    assert await asyncio.gather(*[coordinator.submit(int, "3") for _ in range(50)]) == [3] * 50
    assert gate.inside <= lane.max_workers * 7 // 8, "an eighth of the workers is for the others"
    gate.open()
    assert await gather(*stuck) == list(range(2 * lane.max_workers))


async def test_a_number_of_workers_that_was_chosen_holds_for_one_operation(
    new_coordinator: NewCoordinator, gate: Gate
) -> None:
    coordinator = new_coordinator(thread_workers=32)
    tokens = [coordinator.submit(gate, i) for i in range(32)]
    await gate.entered(32)
    gate.open()
    assert await gather(*tokens) == list(range(32))


def test_a_limit_without_any_event_loop(single: Coordinator, name: str) -> None:
    inside = threading.Lock()

    def alone(i: int) -> int:
        assert inside.acquire(blocking=False)
        inside.release()
        return i

    guarded = task_token_guard(name, limit=1)(alone)
    assert list(guarded.map(range(500), in_flight=50)) == list(range(500))
    assert [token.result(20) for token in [guarded(i) for i in range(50)]] == list(range(50))
