"""Waiting until all tokens of an operation have ended, and changing the number of workers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, TokenState, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0


@task_token_guard("hash_compute")
def compute(i: int) -> int:
    return i


@task_token_guard("string_ops")
def transform(i: int) -> int:
    raise ValueError(i)


async def drained(coordinator: Coordinator, op: Any = None) -> None:
    await asyncio.wait_for(coordinator.drain(op), TIMEOUT)


# -- drain ---------------------------------------------------------------------------------------


async def test_with_nothing_to_wait_for(coordinator: Coordinator) -> None:
    await drained(coordinator)
    await compute(1)
    await drained(coordinator)
    await drained(coordinator, "hash_compute")


async def test_waits_for_all_however_they_end(single: Coordinator, gate: Gate) -> None:
    single.submit(gate)
    gate.wait_entered()
    tokens = [*[compute(i) for i in range(100)], *[transform(i) for i in range(100)]]
    tokens[3].cancel()
    tokens[5].kill("for the test")
    draining = asyncio.ensure_future(drained(single))
    await asyncio.sleep(0)
    gate.open()
    await draining
    assert all(token.done() for token in tokens)
    assert {type(token.exception()) for token in tokens[100:]} == {ValueError}


async def test_waits_for_one_operation_only(coordinator: Coordinator, gate: Gate) -> None:
    held = coordinator.submit(gate)
    gate.wait_entered()
    tokens = [compute(i) for i in range(100)]
    await drained(coordinator, "hash_compute")
    assert all(token.done() for token in tokens)
    await drained(coordinator, compute)
    assert held.state is TokenState.EXECUTING
    draining = asyncio.ensure_future(coordinator.drain("tests.gate"))
    await drained(coordinator, compute.options(tags={"of": "a view"}))
    assert not draining.done()
    gate.open()
    await asyncio.wait_for(draining, TIMEOUT)
    assert held.done()


async def test_what_is_submitted_meanwhile_counts(single: Coordinator, gate: Gate) -> None:
    first = single.submit(gate)
    gate.wait_entered()
    draining = asyncio.ensure_future(drained(single))
    await asyncio.sleep(0)
    second = single.submit(gate)
    gate.let_pass()
    await first
    gate.wait_entered()
    assert not draining.done()
    gate.open()
    await draining
    assert second.done()


async def test_an_abandoned_run_is_not_waited_for(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    gate.wait_entered()
    token.cancel()
    await drained(coordinator)
    assert token.abandoned
    gate.open()


async def test_several_wait_at_once_and_one_gives_up(single: Coordinator, gate: Gate) -> None:
    single.submit(gate)
    gate.wait_entered()
    compute(1)
    waiting = [
        asyncio.ensure_future(single.drain(op))
        for op in (None, "hash_compute", "tests.gate", None, compute)
    ]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert not any(each.done() for each in waiting[1:])
    gate.open()
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), TIMEOUT)


def test_from_several_loops(single: Coordinator, gate: Gate) -> None:
    single.submit(gate)
    gate.wait_entered()
    waiting = threading.Barrier(4)

    async def drains() -> None:
        draining = asyncio.ensure_future(drained(single))
        await asyncio.sleep(0)
        await asyncio.to_thread(waiting.wait, TIMEOUT)
        await draining

    threads = [threading.Thread(target=lambda: asyncio.run(drains())) for _ in range(3)]
    for thread in threads:
        thread.start()
    waiting.wait(TIMEOUT)
    gate.open()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_the_loop_closes_before_the_end(
    single: Coordinator, gate: Gate, unraisable: list[Any]
) -> None:
    token = single.submit(gate)
    gate.wait_entered()

    async def gives_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(single.drain(), 0.01)

    asyncio.run(gives_up())
    gate.open()
    assert token.exception(TIMEOUT) is None


async def test_of_a_stopped_coordinator(single: Coordinator, gate: Gate) -> None:
    single.submit(gate)
    gate.wait_entered()
    closing = asyncio.ensure_future(single.aclose())
    draining = asyncio.ensure_future(drained(single))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.wait_for(asyncio.gather(closing, draining), TIMEOUT)
    await drained(single)


@pytest.mark.parametrize(
    ("asked", "near"), [("hash_compte", "hash_compute"), ("stringops", "string_ops")]
)
async def test_an_unknown_operation_lists_near_names(
    coordinator: Coordinator, asked: str, near: str
) -> None:
    assert await compute(1) == 1
    assert isinstance(await asyncio.gather(transform(1), return_exceptions=True), list)
    with pytest.raises(ValueError, match=f"'{asked}'.*'{near}'"):
        await coordinator.drain(asked)


async def test_an_unknown_operation_like_no_other(coordinator: Coordinator) -> None:
    await compute(1)
    with pytest.raises(ValueError, match=r"'xyz'.*known: "):
        await coordinator.drain("xyz")


async def test_an_operation_that_never_ran(coordinator: Coordinator) -> None:
    await drained(coordinator, "hash_compute")
    await asyncio.wait_for(coordinator.drain(transform), TIMEOUT)


@pytest.mark.parametrize("wrong", [5, b"hash_compute", print])
async def test_what_is_no_operation_is_named(coordinator: Coordinator, wrong: Any) -> None:
    with pytest.raises(TypeError) as caught:
        await coordinator.drain(wrong)
    assert repr(wrong) in str(caught.value)


# -- resize --------------------------------------------------------------------------------------


def test_more_workers_take_what_waits(single: Coordinator, gate: Gate) -> None:
    tokens = [single.submit(gate, i) for i in range(10)]
    gate.wait_entered()
    assert single.stats().totals.executing == 1
    single.resize("thread", 4)
    gate.wait_entered(3)
    assert single.stats().totals.executing == 4
    gate.open()
    assert [token.result(TIMEOUT) for token in tokens] == list(range(10))
    assert gate.most_inside == 4
    assert single.stats().lanes["thread"].max_workers == 4


def until_workers(coordinator: Coordinator, count: int) -> None:
    pause = threading.Event()
    deadline = monotonic() + TIMEOUT
    while coordinator.stats().lanes["thread"].workers != count:
        assert monotonic() < deadline, coordinator.stats().lanes
        pause.wait(0.001)


def test_busy_surplus_workers_end_as_they_become_free(
    new_coordinator: NewCoordinator, new_gate: Callable[[], Gate]
) -> None:
    coordinator = new_coordinator(thread_workers=4)
    before, after = new_gate(), new_gate()
    tokens = [coordinator.submit(before, i) for i in range(4)]
    before.wait_entered(4)
    coordinator.resize("thread", 1)
    tokens += [coordinator.submit(after, i) for i in range(4, 10)]
    before.let_pass(3)
    until_workers(coordinator, 1)
    assert after.calls == 0  # one still executes, and one is the limit
    before.open()
    after.open()
    assert [token.result(TIMEOUT) for token in tokens] == list(range(10))
    assert after.most_inside == 1


def test_idle_surplus_workers_end_at_once(new_coordinator: NewCoordinator, gate: Gate) -> None:
    coordinator = new_coordinator(thread_workers=4)
    tokens = [coordinator.submit(gate) for _ in range(4)]
    gate.wait_entered(4)
    gate.open()
    for token in tokens:
        token.result(TIMEOUT)
    coordinator.resize("thread", 2)
    until_workers(coordinator, 2)
    assert coordinator.submit(int, "5").result(TIMEOUT) == 5


def test_resize_while_stopped_holds_after_start(coordinator: Coordinator, gate: Gate) -> None:
    coordinator.stop()
    coordinator.resize("thread", 2)
    coordinator.start()
    with use(coordinator):
        tokens = [coordinator.submit(gate) for _ in range(6)]
    gate.wait_entered(2)
    assert coordinator.stats().totals.executing == 2
    gate.open()
    for token in tokens:
        token.result(TIMEOUT)
    assert gate.most_inside == 2


@pytest.mark.parametrize("wrong", [0, -1, 4_097, 1.5, "4", True])
def test_an_impossible_number_is_named(coordinator: Coordinator, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        coordinator.resize("thread", wrong)
    assert repr(wrong) in str(caught.value)
    assert coordinator.stats().lanes["thread"].max_workers == 4


@pytest.mark.parametrize("wrong", ["threads", "cluster", None])
def test_an_unknown_lane_is_named(coordinator: Coordinator, wrong: Any) -> None:
    with pytest.raises(ValueError, match="'thread'") as caught:
        coordinator.resize(wrong, 2)
    assert f"lane={wrong!r}" in str(caught.value)
