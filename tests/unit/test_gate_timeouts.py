"""`timeout`, `run_timeout` and `deadline`: tokens that expire, and functions that notice it."""

from __future__ import annotations

import asyncio
import itertools
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
    TokenGateError,
    TokenState,
    checkpoint,
    current_token,
    deadline,
    gather,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, Until

TIMEOUT = 20.0
_serial = itertools.count()


@pytest.fixture
def name() -> str:
    """An operation nobody else has named."""
    return f"operation {next(_serial)} of {__name__}"


def same(value: Any = None) -> Any:
    return value


async def expires(token: Token[Any]) -> TokenExpired:
    with pytest.raises(TokenExpired) as told:
        await asyncio.wait_for(asyncio.shield(token), TIMEOUT)
    assert token.state is TokenState.EXPIRED
    return told.value


# -- while waiting ---------------------------------------------------------------------------------


async def test_while_it_waits(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, timeout=0.02)(gate)
    coordinator.pause(guarded)
    token = guarded(1)
    error = await expires(token)
    assert isinstance(error, (TimeoutError, TokenGateError))
    assert name in str(error)
    assert "not started" in str(error)
    assert (token.done(), token.cancelled(), token.abandoned) == (True, False, False)
    assert token.exception() is error
    assert token.wait_time >= 0.02
    assert token.run_time == 0.0
    assert not token.cancel()
    coordinator.resume(guarded)
    await coordinator.drain()
    assert gate.calls == 0, "an expired token has run"
    figures = coordinator.stats().operations[name]
    assert (figures.submitted, figures.expired, figures.waiting) == (1, 1, 0)


async def test_many_while_they_wait(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name)(gate)
    coordinator.pause(guarded)
    tokens = [guarded.options(timeout=0.001 + 0.00005 * (i % 999))(i) for i in range(2_000)]
    lasting = guarded.options(timeout=1e6)("lasting")
    await asyncio.wait(tokens, timeout=TIMEOUT)
    assert {token.state for token in tokens} == {TokenState.EXPIRED}
    for token in tokens:
        created, _, started, finished = token.timestamps
        assert not started
        assert finished >= created + 1_000_000
    gate.open()
    coordinator.resume(guarded)
    assert await lasting == "lasting"
    assert gate.calls == 1


async def test_one_that_is_ready_for_a_worker(single: Coordinator, gate: Gate, name: str) -> None:
    held = single.submit(gate, "held")
    await gate.entered()
    tokens = [task_token_guard(name, timeout=0.02)(gate)(i) for i in range(3)]
    for token in tokens:
        await expires(token)
    gate.open()
    assert await held == "held"
    assert gate.calls == 1


# -- while executing -------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["timeout", "run_timeout"])
async def test_while_it_executes(
    coordinator: Coordinator, gate: Gate, name: str, which: str, until: Until
) -> None:
    policy: dict[str, Any] = {which: 0.03}
    token = task_token_guard(name, **policy)(gate)(1)
    await gate.entered()
    error = await expires(token)
    assert "running" in str(error)
    assert token.abandoned
    assert token.run_time > 0
    figures = coordinator.stats().operations[name]
    assert (figures.expired, figures.executing) == (1, 0)
    assert (figures.abandoned_now, figures.abandoned_total) == (1, 1)
    gate.open()
    await until(lambda: not token.abandoned)
    assert token.state is TokenState.EXPIRED, "the late result changes nothing"
    assert token.exception() is error


async def test_run_timeout_counts_from_the_start(
    coordinator: Coordinator, gate: Gate, name: str
) -> None:
    guarded = task_token_guard(name, run_timeout=0.02)(gate)
    coordinator.pause(guarded)
    token, clock = guarded(1), guarded.options(timeout=0.1)(2)
    await expires(clock)
    assert token.state is TokenState.WAITING, "waiting counts towards its run_timeout"
    assert token.remaining() is None
    coordinator.resume(guarded)
    await gate.entered()
    assert 0 <= (token.remaining() or 0) <= 0.02
    await expires(token)
    assert token.run_time >= 0.02
    assert token.wait_time >= 0.1
    gate.open()


async def test_the_earlier_of_both_counts(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, timeout=0.02, run_timeout=1e6)(gate)
    await expires(guarded(1))
    other = guarded.options(timeout=1e6, run_timeout=0.02)(2)
    await expires(other)
    gate.open()


async def test_in_time(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, timeout=0.05, run_timeout=0.05)(same)
    token = guarded("in time")
    assert await token == "in time"
    later = task_token_guard(f"{name}, later", timeout=0.1)(gate)
    await expires(later(1))  # by now the first one's deadline has passed as well
    gate.open()
    assert token.state is TokenState.COMPLETED
    assert await token == "in time"
    assert coordinator.stats().operations[name].expired == 0


async def test_a_function_that_fails_in_time(coordinator: Coordinator, name: str) -> None:
    def fail() -> None:
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        await task_token_guard(name, timeout=60, run_timeout=60)(fail)()


def test_without_any_event_loop(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, timeout=0.02)(gate)
    executing = guarded(1)
    gate.wait_entered()
    coordinator.pause()
    waiting = guarded(2)
    for token in (executing, waiting):
        with pytest.raises(TokenExpired):
            token.result(TIMEOUT)
        assert isinstance(token.exception(), TokenExpired)
    gate.open()
    coordinator.resume()


async def test_a_map_of_calls_that_expire(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name)(same)
    coordinator.pause(guarded)
    results = await guarded.options(timeout=0.01).map(range(100), return_exceptions=True)
    assert [type(each) for each in results] == [TokenExpired] * 100
    with pytest.raises(TokenExpired):
        await guarded.options(timeout=0.01).map(range(100))
    coordinator.resume(guarded)
    assert await guarded.options(timeout=60).map(range(100)) == list(range(100))


async def test_callbacks_hear_of_it_on_the_loop(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, timeout=0.01)(same)
    coordinator.pause(guarded)
    token = guarded()
    heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    token.add_done_callback(lambda ended: heard.set_result((ended, threading.get_ident())))
    assert await asyncio.wait_for(heard, TIMEOUT) == (token, threading.get_ident())
    results = await asyncio.gather(guarded(), same_soon(), return_exceptions=True)
    assert isinstance(results[0], TokenExpired)
    coordinator.resume(guarded)


async def same_soon() -> None:
    return None


async def test_single_calls_ask_for_other_timeouts(
    coordinator: Coordinator, gate: Gate, name: str
) -> None:
    guarded = task_token_guard(name, timeout=0.02, run_timeout=0.02)(gate)
    without = guarded.options(timeout=None, run_timeout=None)("without")
    still_one = guarded.options(timeout=None)("run_timeout stays")
    assert without.deadline is None
    await expires(guarded("both"))
    await expires(still_one)
    gate.open()
    assert await without == "without"


async def test_configured_timeouts_hold_for_calls_to_come(
    coordinator: Coordinator, name: str
) -> None:
    guarded = task_token_guard(name)(same)
    coordinator.pause(guarded)
    before = guarded("before")
    coordinator.configure(name, timeout=0.01)
    await expires(guarded("after"))
    coordinator.configure(name, timeout=None)
    lasting = guarded("lasting")
    assert lasting.deadline is None
    coordinator.resume(guarded)
    assert await gather(before, lasting) == ["before", "lasting"]


async def test_after_stop_and_start(new_coordinator: NewCoordinator, name: str) -> None:
    coordinator = new_coordinator()
    guarded = task_token_guard(name, timeout=0.01)(same)
    for _ in range(3):
        with use(coordinator):
            coordinator.pause()
            await expires(guarded())
            coordinator.resume()
            await guarded.options(timeout=60)()
        await coordinator.aclose()
        coordinator.start()


# -- deadline, remaining ---------------------------------------------------------------------------


async def test_what_a_token_knows(coordinator: Coordinator, name: str) -> None:
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
    coordinator: Coordinator, name: str
) -> None:
    guarded = task_token_guard(name)(same)
    coordinator.pause(guarded)
    with deadline(0.02):
        inside = guarded(1)
        (mapped,) = [asyncio.ensure_future(_awaited(guarded.map([1, 2])))]
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


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


async def test_of_several_the_earliest_counts(coordinator: Coordinator, name: str) -> None:
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
    coordinator: Coordinator, gate: Gate, name: str
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


async def test_tasks_started_inside_inherit_it(coordinator: Coordinator, name: str) -> None:
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
    coordinator: Coordinator, gate: Gate, name: str
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
    coordinator: Coordinator, name: str, seconds: float
) -> None:
    guarded = task_token_guard(name, timeout=seconds, run_timeout=seconds)(same)
    assert await guarded(1) == 1
    with deadline(seconds):
        assert await guarded(2) == 2
        assert await guarded.options(timeout=seconds)(3) == 3


async def test_one_deadline_for_several_blocks(coordinator: Coordinator) -> None:
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
    await asyncio.wait([token], timeout=TIMEOUT)
    await until(lambda: not token.abandoned)
    assert [type(error) for error in caught] == [TokenCancelled]
    assert name in str(caught[0])
    assert token.state.name.startswith({"cancel": "CANC", "kill": "KILL", "expire": "EXP"}[how])
    assert coordinator.stats().operations[name].failed == 0
    assert token.cancelled() or token.exception()


async def test_a_checkpoint_of_the_inner_function_asks_for_the_inner_token(
    single: Coordinator, name: str
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
    await asyncio.wait([token])
    await single.drain()
    assert token.cancelled()
    assert single.stats().operations[f"{name}, inner"].completed == 1


def test_outside_a_token_a_checkpoint_does_nothing() -> None:
    checkpoint()
