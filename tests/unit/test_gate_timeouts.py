"""`timeout`, `run_timeout` and `deadline`: tokens that expire, and functions that notice it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    TokenExpired,
    TokenGateError,
    TokenState,
    gather,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from tests.conftest import Expires, Gate, NewCoordinator, Same, Until

TIMEOUT = 20.0


# -- while waiting ---------------------------------------------------------------------------------


async def test_while_it_waits(
    coordinator: Coordinator, gate: Gate, name: str, expires: Expires
) -> None:
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
    await asyncio.wait([*map(asyncio.ensure_future, tokens)], timeout=TIMEOUT)
    assert {token.state for token in tokens} == {TokenState.EXPIRED}
    for token in tokens:
        created, _, started, finished = token.timestamps
        assert not started
        assert finished >= created + 1_000_000
    gate.open()
    coordinator.resume(guarded)
    assert await lasting == "lasting"
    assert gate.calls == 1


async def test_one_that_is_ready_for_a_worker(
    single: Coordinator, gate: Gate, name: str, expires: Expires
) -> None:
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
    coordinator: Coordinator, gate: Gate, name: str, which: str, until: Until, expires: Expires
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
    coordinator: Coordinator, gate: Gate, name: str, expires: Expires
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


async def test_the_earlier_of_both_counts(
    coordinator: Coordinator, gate: Gate, name: str, expires: Expires
) -> None:
    guarded = task_token_guard(name, timeout=0.02, run_timeout=1e6)(gate)
    await expires(guarded(1))
    other = guarded.options(timeout=1e6, run_timeout=0.02)(2)
    await expires(other)
    gate.open()


async def test_in_time(
    coordinator: Coordinator, gate: Gate, name: str, same: Same, expires: Expires
) -> None:
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


async def test_a_map_of_calls_that_expire(coordinator: Coordinator, name: str, same: Same) -> None:
    guarded = task_token_guard(name)(same)
    coordinator.pause(guarded)
    results = await guarded.options(timeout=0.01).map(range(100), return_exceptions=True)
    assert [type(each) for each in results] == [TokenExpired] * 100
    with pytest.raises(TokenExpired):
        await guarded.options(timeout=0.01).map(range(100))
    coordinator.resume(guarded)
    assert await guarded.options(timeout=60).map(range(100)) == list(range(100))


async def test_callbacks_hear_of_it_on_the_loop(
    coordinator: Coordinator, name: str, same: Same
) -> None:
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
    coordinator: Coordinator, gate: Gate, name: str, expires: Expires
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
    coordinator: Coordinator, name: str, same: Same, expires: Expires
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
    assert await gather(*[before, lasting]) == ["before", "lasting"]


async def test_after_stop_and_start(
    new_coordinator: NewCoordinator, name: str, same: Same, expires: Expires
) -> None:
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
