"""The life of a coordinator: it starts by itself, stops, starts again, and keeps to itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, CoordinatorStopped, TokenState, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0


@task_token_guard
def add(a: int, b: int = 1) -> int:
    return a + b


def workers_of(coordinator: Coordinator) -> int:
    return coordinator.stats().lanes["thread"].workers


# -- starting ------------------------------------------------------------------------------------


def test_starts_with_the_first_token_not_before(new_coordinator: NewCoordinator) -> None:
    before = threading.active_count()
    coordinator = new_coordinator()
    coordinator.start()
    assert threading.active_count() == before
    assert coordinator.submit(add, 1).result(TIMEOUT) == 2
    assert threading.active_count() == before + 1


def test_start_may_be_called_again_and_returns_the_coordinator(coordinator: Coordinator) -> None:
    assert coordinator.start() is coordinator
    assert coordinator.start() is coordinator
    assert add(1).result(TIMEOUT) == 2


def test_submit_takes_any_callable_and_names_its_operation(coordinator: Coordinator) -> None:
    token = coordinator.submit(divmod, 7, 2)
    assert token.result(TIMEOUT) == (3, 1)
    assert token.operation_type == "builtins.divmod"
    assert coordinator.submit(dict, a=1).result(TIMEOUT) == {"a": 1}
    # submit's own parameters do not get into the way of the function's
    assert coordinator.submit(dict, self=1, fn=2).result(TIMEOUT) == {"self": 1, "fn": 2}


def test_submit_keeps_the_operation_of_a_guarded_function(coordinator: Coordinator) -> None:
    guarded = task_token_guard("summing", tags={"weight": "light"})(add.__wrapped__)
    token = coordinator.submit(guarded, 1, 2)
    assert (token.operation_type, dict(token.tags)) == ("summing", {"weight": "light"})
    assert token.result(TIMEOUT) == 3


@pytest.mark.parametrize("wrong", [None, 5, "add", [add]])
def test_submit_refuses_what_cannot_be_called(coordinator: Coordinator, wrong: Any) -> None:
    with pytest.raises(TypeError, match="callable") as caught:
        coordinator.submit(wrong)
    assert repr(wrong) in str(caught.value)


def test_submit_refuses_an_asynchronous_function(coordinator: Coordinator) -> None:
    async def asynchronous() -> None: ...

    with pytest.raises(TypeError, match="async def"):
        coordinator.submit(asynchronous)


def test_thread_workers_bounds_what_executes_at_once(
    new_coordinator: NewCoordinator, gate: Gate
) -> None:
    coordinator = new_coordinator(thread_workers=3)
    tokens = [coordinator.submit(gate, i) for i in range(20)]
    gate.wait_entered(3)
    assert coordinator.stats().totals.executing == 3
    gate.open()
    assert [token.result(TIMEOUT) for token in tokens] == list(range(20))
    assert gate.most_inside == 3


def test_the_name_is_the_start_of_the_threads_names(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator(name="kitchen")
    name = coordinator.submit(lambda: threading.current_thread().name).result(TIMEOUT)
    assert name.startswith("kitchen-")
    assert "kitchen" in repr(coordinator)


def test_state_is_shown(coordinator: Coordinator) -> None:
    assert not coordinator.stopped
    assert "stopped" not in repr(coordinator)
    coordinator.stop()
    assert coordinator.stopped
    assert "stopped" in repr(coordinator)
    coordinator.start()
    assert not coordinator.stopped


# -- stopped, and started again ------------------------------------------------------------------


def test_stop_of_one_never_used_and_stop_again(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator()
    coordinator.stop()
    coordinator.stop()
    assert coordinator.stopped


def test_stop_ends_the_workers(coordinator: Coordinator, gate: Gate) -> None:
    before = threading.active_count()
    tokens = [coordinator.submit(gate) for _ in range(4)]
    gate.wait_entered(4)
    assert threading.active_count() >= before + 4
    gate.open()
    coordinator.stop()
    assert {token.state for token in tokens} == {TokenState.COMPLETED}
    assert threading.active_count() == before
    assert workers_of(coordinator) == 0


def test_a_call_after_stop_is_a_token_already_killed(coordinator: Coordinator) -> None:
    coordinator.stop()
    tokens = [add(1), coordinator.submit(add, 1), add.options(coordinator=coordinator)(1)]
    for token in tokens:
        assert token.state is TokenState.KILLED
        assert token.done()
        with pytest.raises(CoordinatorStopped, match="stopped"):
            token.result()
    assert workers_of(coordinator) == 0
    totals = coordinator.stats().totals
    assert (totals.submitted, totals.rejected, totals.killed) == (3, 3, 3)


async def test_awaiting_a_call_after_stop(coordinator: Coordinator) -> None:
    await coordinator.aclose()
    with pytest.raises(CoordinatorStopped):
        await add(1)
    results = await asyncio.gather(add(1), add(2), return_exceptions=True)
    assert [type(result) for result in results] == [CoordinatorStopped] * 2
    results = await tokengate.gather(add(1), add(2), return_exceptions=True)
    assert [type(result) for result in results] == [CoordinatorStopped] * 2
    with pytest.raises(CoordinatorStopped):
        await asyncio.wait_for(add(1), TIMEOUT)
    with pytest.raises(CoordinatorStopped):
        await tokengate.gather(add(1))
    assert [token.state async for token in tokengate.as_completed([add(1)])] == [TokenState.KILLED]


async def test_map_after_stop(coordinator: Coordinator) -> None:
    await coordinator.aclose()
    with pytest.raises(CoordinatorStopped):
        await add.map(range(1_000))
    results = await add.map(range(1_000), return_exceptions=True)
    assert {type(result) for result in results} == {CoordinatorStopped}
    assert len(results) == 1_000
    with pytest.raises(CoordinatorStopped):
        await anext(aiter(add.map(range(1_000))))
    finished = [token async for token in add.map(range(100), tokens=True)]
    assert {token.state for token in finished} == {TokenState.KILLED}


def test_map_after_stop_off_the_loop(coordinator: Coordinator) -> None:
    coordinator.stop()
    with pytest.raises(CoordinatorStopped):
        list(add.map(range(1_000)))
    results = list(add.map(range(1_000), return_exceptions=True))
    assert [type(result) for result in results] == [CoordinatorStopped] * 1_000


async def test_stopped_in_the_middle_of_a_map(coordinator: Coordinator) -> None:
    results = []

    async def consume() -> None:
        async for result in add.map(range(100_000), in_flight=10):
            results.append(result)
            if len(results) == 50:
                await coordinator.aclose()

    with pytest.raises(CoordinatorStopped):
        await consume()
    assert results == list(range(1, len(results) + 1))
    assert 50 <= len(results) <= 61


def test_start_after_stop(coordinator: Coordinator) -> None:
    for i in range(5):
        assert add(i).result(TIMEOUT) == i + 1
        coordinator.stop()
        assert isinstance(add(i).exception(), CoordinatorStopped)
        coordinator.start()
    assert list(add.map(range(100))) == list(range(1, 101))
    totals = coordinator.stats().totals  # counted from its making on, not from its last start
    assert (totals.completed, totals.rejected) == (105, 5)


async def test_start_after_aclose_on_another_loop(coordinator: Coordinator) -> None:
    assert await add(1) == 2
    await coordinator.aclose()

    def elsewhere() -> int:
        async def main() -> int:
            async with coordinator:
                return await add(2)

        return asyncio.run(main())

    with use(coordinator):
        assert await asyncio.to_thread(elsewhere) == 3
    coordinator.start()
    assert await add(3) == 4


def test_the_default_coordinator_can_be_stopped_and_started() -> None:
    default = tokengate.get_coordinator()
    assert add(1).result(TIMEOUT) == 2
    default.stop()
    try:
        assert isinstance(add(1).exception(), CoordinatorStopped)
    finally:
        default.start()
    assert add(1).result(TIMEOUT) == 2
    default.stop()
    default.start()


# -- with ----------------------------------------------------------------------------------------


def test_with_stops_and_lets_everything_run(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator(thread_workers=1)
    with coordinator as entered:
        assert entered is coordinator
        tokens = [coordinator.submit(add, i) for i in range(100)]
    assert coordinator.stopped
    assert [token.result() for token in tokens] == list(range(1, 101))


def test_with_starts_a_stopped_one(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator()
    for i in range(3):
        with coordinator:
            assert coordinator.submit(add, i).result(TIMEOUT) == i + 1


async def test_async_with_stops_and_lets_everything_run(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator(thread_workers=1)
    async with coordinator as entered:
        assert entered is coordinator
        tokens = [coordinator.submit(add, i) for i in range(100)]
    assert coordinator.stopped
    assert [token.result() for token in tokens] == list(range(1, 101))


def test_leaving_with_by_an_exception_ends_what_waits(
    new_coordinator: NewCoordinator, gate: Gate
) -> None:
    coordinator = new_coordinator(thread_workers=1)
    executing: list[tokengate.Token[str]] = []
    waiting: list[tokengate.Token[int]] = []

    def open_once_they_have_ended() -> None:
        for token in waiting:
            token.exception(TIMEOUT)
        gate.open()

    helper = threading.Thread(target=open_once_they_have_ended)

    def body() -> None:
        with coordinator:
            executing.append(coordinator.submit(gate, "finished"))
            waiting.extend(coordinator.submit(add, i) for i in range(100))
            gate.wait_entered()
            helper.start()
            raise LookupError("the body's own")

    with pytest.raises(LookupError, match="the body's own"):
        body()
    helper.join()
    assert executing[0].result() == "finished"
    assert {token.state for token in waiting} == {TokenState.KILLED}
    assert all(isinstance(token.exception(), CoordinatorStopped) for token in waiting)


async def test_leaving_async_with_by_an_exception_ends_what_waits(
    new_coordinator: NewCoordinator, gate: Gate
) -> None:
    coordinator = new_coordinator(thread_workers=1)
    executing: list[tokengate.Token[str]] = []
    waiting: list[tokengate.Token[int]] = []

    async def body() -> None:
        async with coordinator:
            executing.append(coordinator.submit(gate, "finished"))
            waiting.extend(coordinator.submit(add, i) for i in range(100))
            gate.wait_entered()
            all_ended = asyncio.gather(*waiting, return_exceptions=True)
            all_ended.add_done_callback(lambda _: gate.open())
            raise LookupError("the body's own")

    with pytest.raises(LookupError, match="the body's own"):
        await body()
    assert executing[0].result() == "finished"
    assert {type(token.exception()) for token in waiting} == {CoordinatorStopped}


async def test_leaving_async_with_by_cancellation(
    new_coordinator: NewCoordinator, gate: Gate
) -> None:
    coordinator = new_coordinator(thread_workers=1)
    inside = asyncio.Event()

    async def body() -> None:
        async with coordinator:
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(body())
    await inside.wait()
    executing = coordinator.submit(gate, "finished")
    waiting = coordinator.submit(add, 1)
    gate.wait_entered()
    waiting.add_done_callback(lambda _: gate.open())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert executing.result() == "finished"
    assert isinstance(waiting.exception(), CoordinatorStopped)


# -- several -------------------------------------------------------------------------------------


def test_two_coordinators_share_nothing(new_coordinator: NewCoordinator, gate: Gate) -> None:
    first, second = new_coordinator(thread_workers=1), new_coordinator(thread_workers=1)
    blocking = first.submit(gate, "first")
    gate.wait_entered()
    behind = first.submit(add, 1)
    assert [second.submit(add, i).result(TIMEOUT) for i in range(10)] == list(range(1, 11))
    assert behind.state in (TokenState.WAITING, TokenState.ADMITTED)
    second.stop()
    assert isinstance(second.submit(add, 1).exception(), CoordinatorStopped)
    gate.open()
    assert (blocking.result(TIMEOUT), behind.result(TIMEOUT)) == ("first", 2)
    assert first.stats().totals.completed == 2
    assert second.stats().totals.completed == 10


def test_functions_of_one_coordinator_call_another(new_coordinator: NewCoordinator) -> None:
    outer, inner = new_coordinator(thread_workers=2), new_coordinator(thread_workers=2)

    def calls(i: int) -> int:
        return inner.submit(add, i).result(TIMEOUT)

    assert [outer.submit(calls, i).result(TIMEOUT) for i in range(20)] == list(range(1, 21))


def test_many_coordinators_at_once(new_coordinator: NewCoordinator) -> None:
    coordinators = [new_coordinator(thread_workers=1) for _ in range(16)]
    tokens = [each.submit(add, i) for i in range(20) for each in coordinators]
    assert sum(token.result(TIMEOUT) for token in tokens) == 16 * sum(range(1, 21))


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"thread_workers": 0}, ValueError),
        ({"thread_workers": -1}, ValueError),
        ({"thread_workers": 4_097}, ValueError),
        ({"thread_workers": 2.0}, TypeError),
        ({"thread_workers": "2"}, TypeError),
        ({"thread_workers": True}, TypeError),
        ({"pin": "cores"}, ValueError),
        ({"pin": None}, ValueError),
        ({"pin": []}, ValueError),
        ({"stop_timeout": -0.1}, ValueError),
        ({"stop_timeout": float("nan")}, ValueError),
        ({"stop_timeout": float("inf")}, ValueError),
        ({"stop_timeout": "10"}, TypeError),
        ({"stop_timeout": None}, TypeError),
        ({"name": ""}, ValueError),
        ({"name": 5}, (TypeError, ValueError)),
        ({"name": None}, (TypeError, ValueError)),
    ],
    ids=repr,
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], error: Any) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(error) as caught:
        Coordinator(**wrong)
    assert f"{name}={value!r}" in str(caught.value)


def test_settings_are_keywords_and_known() -> None:
    with pytest.raises(TypeError):
        Coordinator(4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="threads"):
        Coordinator(threads=4)  # type: ignore[call-arg]


@pytest.mark.parametrize("workers", [1, 4_096])
def test_the_extreme_numbers_of_workers_are_taken(
    new_coordinator: NewCoordinator, workers: int
) -> None:
    coordinator = new_coordinator(thread_workers=workers)
    assert [coordinator.submit(add, i).result(TIMEOUT) for i in range(5)] == [1, 2, 3, 4, 5]
    assert coordinator.stats().lanes["thread"].max_workers == workers
