"""The stop protocol: what waits, what executes, what is stuck, who may stop, and who at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, CoordinatorStopped, TokenKilled, TokenState

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0
# Less than any test lets its coordinator wait, more than a busy machine needs.
SOON = 10.0
MANY = 10_000


def add(a: int, b: int = 1) -> int:
    return a + b


def in_thread(function: Any, *arguments: Any) -> concurrent.futures.Future[Any]:
    """The outcome of a call made in a thread of its own."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run).start()
    return future


def until_stopping(coordinator: Coordinator) -> None:
    pause = threading.Event()
    deadline = monotonic() + TIMEOUT
    while not coordinator.stopped:
        assert monotonic() < deadline
        pause.wait(0.001)


def killed_by_stop(token: tokengate.Token[Any]) -> bool:
    return token.state is TokenState.KILLED and isinstance(token.exception(), CoordinatorStopped)


# -- what waits ----------------------------------------------------------------------------------


def test_many_waiting_tokens_run_before_it_ends(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    blocking = single.submit(gate, "first")
    tokens = [single.submit(add, i) for i in range(MANY)]
    gate.wait_entered()
    stopping = in_thread(single.stop)
    until_stopping(single)
    assert killed_by_stop(single.submit(add, 1))
    assert not stopping.done()
    gate.open()
    stopping.result(TIMEOUT)
    assert blocking.result() == "first"
    assert [token.result() for token in tokens] == list(range(1, MANY + 1))
    assert capsys.readouterr().err == ""


def test_many_waiting_tokens_are_killed_where_asked(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    blocking = single.submit(gate, "first")
    tokens = [single.submit(add, i) for i in range(MANY)]
    gate.wait_entered()
    stopping = in_thread(lambda: single.stop(cancel_waiting=True))
    # all of them, before the worker is let go: it would take one that has not been reached yet
    assert all(isinstance(token.exception(TIMEOUT), CoordinatorStopped) for token in tokens)
    assert not stopping.done()  # what executes has its time
    gate.open()
    stopping.result(TIMEOUT)
    assert blocking.result() == "first"
    assert all(killed_by_stop(token) for token in tokens)
    assert single.stats().totals.killed == MANY
    assert capsys.readouterr().err == ""  # it was asked for


def test_many_waiting_tokens_behind_a_stuck_one_are_killed_and_counted(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = single.submit(gate)
    tokens = [single.submit(add, i) for i in range(MANY)]
    gate.wait_entered()
    begun = monotonic()
    single.stop(timeout=0.1)
    assert 0.1 <= monotonic() - begun < SOON
    assert all(killed_by_stop(token) for token in tokens)
    assert killed_by_stop(stuck)
    assert re.search(r"\b10,?000 waiting tokens", capsys.readouterr().err)
    gate.open()


async def test_aclose_with_many_waiting_leaves_the_loop_free(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    single.submit(gate)
    tokens = [single.submit(add, i) for i in range(MANY)]
    gate.wait_entered()
    gathered = asyncio.gather(*tokens, return_exceptions=True)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.ensure_future(count_turns())
    await single.aclose(timeout=0.2)
    results = await gathered
    counting.cancel()
    assert turns > 20
    assert {type(result) for result in results} == {CoordinatorStopped}
    assert re.search(r"\b10,?000 waiting tokens", capsys.readouterr().err)
    gate.open()


async def test_aclose_lets_everything_run(single: Coordinator) -> None:
    tokens = [single.submit(add, i) for i in range(1_000)]
    await single.aclose()
    assert [token.result() for token in tokens] == list(range(1, 1_001))


async def test_aclose_cancelling_what_waits(single: Coordinator, gate: Gate) -> None:
    executing = single.submit(gate, "first")
    waiting = [single.submit(add, i) for i in range(100)]
    gate.wait_entered()
    all_ended = asyncio.gather(*waiting, return_exceptions=True)
    all_ended.add_done_callback(lambda _: gate.open())
    await single.aclose(cancel_waiting=True)
    assert executing.result() == "first"
    assert all(killed_by_stop(token) for token in waiting)


def test_those_who_wait_for_a_killed_token_are_told(single: Coordinator, gate: Gate) -> None:
    single.submit(gate)
    token = single.submit(add, 1)
    gate.wait_entered()

    async def awaits() -> int:
        return await asyncio.wait_for(asyncio.shield(awaited), TIMEOUT)

    awaited = single.submit(add, 2)
    blocked = in_thread(token.result)
    awaiting = in_thread(asyncio.run, awaits())
    stopping = in_thread(lambda: single.stop(cancel_waiting=True))
    with pytest.raises(CoordinatorStopped):
        blocked.result(TIMEOUT)
    with pytest.raises(CoordinatorStopped):
        awaiting.result(TIMEOUT)
    gate.open()
    stopping.result(TIMEOUT)


# -- what is stuck -------------------------------------------------------------------------------


def test_a_stuck_function_is_abandoned_and_its_stack_reported(
    new_coordinator: NewCoordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator = new_coordinator(thread_workers=2, name="demo")

    def function_that_hangs() -> None:
        gate()

    token = coordinator.submit(function_that_hangs)
    coordinator.submit(add, 1).result(TIMEOUT)
    gate.wait_entered()
    begun = monotonic()
    coordinator.stop(timeout=0.2)
    assert 0.2 <= monotonic() - begun < SOON
    reported = capsys.readouterr().err
    assert "demo" in reported
    assert re.search(r"\b1 functions? still", reported)
    assert "in function_that_hangs" in reported
    assert "test_coordinator_stop.py" in reported
    assert "waiting tokens" not in reported
    assert killed_by_stop(token)
    assert token.abandoned
    assert coordinator.stats().totals.abandoned_now == 1
    gate.open()
    coordinator.stop()
    assert not token.abandoned
    assert coordinator.stats().totals.abandoned_now == 0


async def test_aclose_reports_a_stuck_function(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    token = single.submit(gate)
    gate.wait_entered()
    awaiting = asyncio.ensure_future(asyncio.wait_for(asyncio.shield(token), TIMEOUT))
    begun = monotonic()
    await single.aclose(timeout=0.2)
    assert 0.2 <= monotonic() - begun < SOON
    with pytest.raises(CoordinatorStopped):
        await awaiting
    assert re.search(r"\b1 functions? still", capsys.readouterr().err)
    gate.open()


def test_the_stop_timeout_of_the_coordinator_is_the_default(
    new_coordinator: NewCoordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator = new_coordinator(thread_workers=1, stop_timeout=0.1)
    assert coordinator.stop_timeout == 0.1
    token = coordinator.submit(gate)
    gate.wait_entered()
    coordinator.stop()
    assert killed_by_stop(token)
    assert "0.1 s" in capsys.readouterr().err
    gate.open()


def test_no_time_at_all(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    executing, waiting = single.submit(gate), single.submit(add, 1)
    gate.wait_entered()
    single.stop(timeout=0)
    assert killed_by_stop(executing)
    assert killed_by_stop(waiting)
    assert capsys.readouterr().err != ""
    gate.open()
    single.stop()


def test_an_idle_one_stops_silently_in_no_time(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coordinator.submit(add, 1).result(TIMEOUT) == 2
    coordinator.stop(timeout=0)
    assert capsys.readouterr().err == ""


def test_starting_again_beside_a_stuck_function(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = single.submit(gate, "late")
    gate.wait_entered()
    single.stop(timeout=0)
    single.start()
    assert [single.submit(add, i).result(TIMEOUT) for i in range(10)] == list(range(1, 11))
    assert stuck.abandoned
    gate.open()
    single.stop()
    assert killed_by_stop(stuck)  # whatever it returned in the end
    assert capsys.readouterr().err.count("still") == 1


# -- who may -------------------------------------------------------------------------------------


async def test_on_a_loops_own_thread_it_names_aclose(coordinator: Coordinator) -> None:
    with pytest.raises(RuntimeError, match="aclose"):
        coordinator.stop()
    assert not coordinator.stopped
    with pytest.raises(RuntimeError, match="aclose"):
        coordinator.stop(timeout=0, cancel_waiting=True)
    assert await coordinator.submit(add, 1) == 2


async def test_plain_with_on_a_loop_names_aclose(coordinator: Coordinator) -> None:
    with pytest.raises(RuntimeError, match="aclose"), coordinator:
        assert await coordinator.submit(add, 1) == 2
    assert await coordinator.submit(add, 1) == 2


def test_from_its_own_worker_it_is_refused(coordinator: Coordinator) -> None:
    with pytest.raises(RuntimeError, match="wait for"):
        coordinator.submit(coordinator.stop).result(TIMEOUT)
    assert not coordinator.stopped
    assert coordinator.submit(add, 1).result(TIMEOUT) == 2


def test_aclose_from_its_own_worker_is_refused(coordinator: Coordinator) -> None:
    def closes() -> None:
        asyncio.run(coordinator.aclose())

    with pytest.raises(RuntimeError, match="wait for"):
        coordinator.submit(closes).result(TIMEOUT)
    assert not coordinator.stopped
    assert coordinator.submit(add, 1).result(TIMEOUT) == 2


def test_from_the_worker_of_another(new_coordinator: NewCoordinator) -> None:
    first, second = new_coordinator(), new_coordinator()
    token = second.submit(add, 1)
    first.submit(second.stop).result(TIMEOUT)
    assert second.stopped
    assert token.result() == 2
    assert first.submit(add, 1).result(TIMEOUT) == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1", TypeError),
        (True, TypeError),
        (1j, TypeError),
    ],
    ids=repr,
)
async def test_a_wrong_timeout_is_named_and_stops_nothing(
    coordinator: Coordinator, wrong: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout=") as caught:
        await asyncio.to_thread(coordinator.stop, wrong)
    assert repr(wrong) in str(caught.value)
    with pytest.raises(error, match="timeout="):
        await coordinator.aclose(wrong)
    assert not coordinator.stopped


@pytest.mark.parametrize("seconds", [1e10, 1e18, 1e300, 10**30])
def test_a_very_long_timeout(new_coordinator: NewCoordinator, gate: Gate, seconds: float) -> None:
    coordinator = new_coordinator(stop_timeout=seconds)
    token = coordinator.submit(gate, 1)
    gate.wait_entered()

    def open_later() -> None:
        until_stopping(coordinator)
        gate.open()

    helper = threading.Thread(target=open_later)
    helper.start()
    coordinator.stop()
    helper.join()
    assert token.result() == 1
    coordinator.start()
    assert coordinator.submit(add, 1).result(seconds) == 2
    assert tokengate.gather(coordinator.submit(add, 1)).result(seconds) == [2]
    coordinator.stop(seconds)


# -- at once -------------------------------------------------------------------------------------


def test_two_threads_stop_it_at_once(single: Coordinator, gate: Gate) -> None:
    tokens = [single.submit(gate, i) for i in range(100)]
    gate.wait_entered()
    together = threading.Barrier(4)

    def stop() -> None:
        together.wait(TIMEOUT)
        single.stop()

    stopping = [in_thread(stop) for _ in range(3)]
    together.wait(TIMEOUT)
    until_stopping(single)
    assert not any(future.done() for future in stopping)
    gate.open()
    for future in stopping:
        future.result(TIMEOUT)
    assert [token.result() for token in tokens] == list(range(100))
    single.start()
    assert single.submit(add, 1).result(TIMEOUT) == 2


async def test_two_tasks_and_a_thread_stop_it_at_once(single: Coordinator, gate: Gate) -> None:
    tokens = [single.submit(gate, i) for i in range(100)]
    gate.wait_entered()
    threaded = asyncio.to_thread(single.stop)
    stopping = asyncio.gather(single.aclose(), single.aclose(), threaded)
    await asyncio.to_thread(until_stopping, single)
    assert not stopping.done()
    gate.open()
    await stopping
    assert [token.result() for token in tokens] == list(range(100))


async def test_aclose_may_be_cancelled_and_repeated(single: Coordinator, gate: Gate) -> None:
    token, behind = single.submit(gate, 1), single.submit(add, 1)
    gate.wait_entered()
    closing = asyncio.ensure_future(single.aclose())
    await asyncio.sleep(0)
    assert single.stopped
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert token.state is TokenState.EXECUTING
    assert not behind.done()
    gate.open()
    await single.aclose()
    assert (token.result(), behind.result()) == (1, 2)
    assert single.stats().lanes["thread"].workers == 0


def test_a_second_caller_may_end_what_the_first_lets_run(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    executing, waiting = single.submit(gate, 1), single.submit(add, 1)
    gate.wait_entered()
    first = in_thread(single.stop)
    until_stopping(single)
    second = in_thread(lambda: single.stop(cancel_waiting=True))
    assert isinstance(waiting.exception(TIMEOUT), CoordinatorStopped)
    assert not first.done()
    gate.open()
    first.result(TIMEOUT)
    second.result(TIMEOUT)
    assert executing.result() == 1
    assert capsys.readouterr().err == ""


def test_a_second_caller_has_its_own_timeout(
    single: Coordinator, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    executing, waiting = single.submit(gate, 1), single.submit(add, 1)
    gate.wait_entered()
    first = in_thread(single.stop, 3_600)
    until_stopping(single)
    begun = monotonic()
    in_thread(single.stop, 0.1).result(TIMEOUT)
    assert monotonic() - begun < SOON
    assert killed_by_stop(executing)
    assert killed_by_stop(waiting)
    gate.open()
    first.result(TIMEOUT)
    assert "1 waiting" in capsys.readouterr().err


def test_stopping_while_others_submit(new_coordinator: NewCoordinator) -> None:
    """Every token of every thread ends, and as the counters say."""
    coordinator = new_coordinator(thread_workers=2)
    going = threading.Barrier(5)

    def submits() -> list[tokengate.Token[int]]:
        going.wait(TIMEOUT)
        tokens: list[tokengate.Token[int]] = []
        while not coordinator.stopped:
            tokens.append(coordinator.submit(add, len(tokens)))
        return [*tokens, *(coordinator.submit(add, 1) for _ in range(10))]

    submitting = [in_thread(submits) for _ in range(4)]
    going.wait(TIMEOUT)
    enough = coordinator.submit(add, 1)
    assert enough.exception(TIMEOUT) is None
    coordinator.stop()
    tokens = [token for future in submitting for token in future.result(TIMEOUT)]
    for place, token in enumerate(tokens):
        error = token.exception(TIMEOUT)
        assert error is None or isinstance(error, CoordinatorStopped), (place, token)
    completed = sum(token.state is TokenState.COMPLETED for token in tokens)
    totals = coordinator.stats().totals
    assert totals.completed == completed + 1
    assert totals.killed == len(tokens) - completed
    assert totals.submitted == len(tokens) + 1


def test_functions_that_submit_while_it_stops(single: Coordinator, gate: Gate) -> None:
    """What a running function submits is refused once stopping has begun; the function goes on."""

    def submits() -> str:
        gate()
        refused = single.submit(add, 1)
        with pytest.raises(TokenKilled):
            refused.result(TIMEOUT)
        return "went on"

    token = single.submit(submits)
    gate.wait_entered()
    stopping = in_thread(single.stop)
    until_stopping(single)
    gate.open()
    stopping.result(TIMEOUT)
    assert token.result() == "went on"
