"""A `.map` waits for room in its operation's queue, under every overflow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import AddUp, Gate, Same

EVERY_OVERFLOW = pytest.mark.parametrize("overflow", ["reject", "shed_oldest", "block"])


@EVERY_OVERFLOW
async def test_a_map_waits_for_room(
    coordinator: Coordinator, gate: Gate, name: str, overflow: Any
) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=3, overflow=overflow)(gate)

    async def results() -> list[Any]:
        return [result async for result in guarded.map(range(40), in_flight=20)]

    async def awaited() -> list[Any]:
        return await guarded.map(range(40, 80))

    running = asyncio.gather(results(), awaited())
    try:
        for _ in range(20):
            await gate.entered()
            assert coordinator.stats().operations[name].waiting <= 3
            gate.let_pass()
    finally:
        gate.open()
        await asyncio.wait([running])
    assert [*running.result()] == [list(range(40)), list(range(40, 80))]
    figures = coordinator.stats().operations[name]
    assert (figures.completed, figures.killed, figures.rejected) == (80, 0, 0)


@EVERY_OVERFLOW
def test_a_map_on_a_plain_thread_waits_for_room(
    coordinator: Coordinator, name: str, overflow: Any, same: Same
) -> None:
    guarded = task_token_guard(name, limit=2, max_waiting=2, overflow=overflow)(same)
    assert list(guarded.map(range(500), in_flight=100)) == list(range(500))
    unordered = guarded.map(range(500), in_flight=100, ordered=False)
    assert sorted(unordered) == list(range(500))
    figures = coordinator.stats().operations[name]
    assert (figures.completed, figures.submitted) == (1000, 1000)


async def test_a_map_that_waits_for_room_can_be_left(
    coordinator: Coordinator, gate: Gate, name: str, add_up: AddUp
) -> None:
    guarded = task_token_guard(name, limit=1, max_waiting=1)(gate)
    waiting = asyncio.ensure_future(guarded.map(range(10)))
    await gate.entered()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.open()
    await coordinator.drain()
    assert gate.calls == 1
    assert add_up(coordinator, name)
