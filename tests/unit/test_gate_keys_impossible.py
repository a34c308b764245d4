"""`key` functions that raise, and values that cannot be keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, FunctionExited, TokenState, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, Same


class Unfortunate:
    """A value whose hash, or whose comparison, fails."""

    def __init__(self, hashes: bool) -> None:
        self.hashes = hashes

    def __hash__(self) -> int:
        if not self.hashes:
            raise LookupError("no hash")
        return 1

    def __eq__(self, other: object) -> bool:
        raise LookupError("no comparison")


async def test_a_key_function_that_raises(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, key=lambda value: 1 // value)(gate)
    gate.open()
    bad, good = guarded(0), guarded(1)
    assert bad.state is TokenState.FAILED, "known at once"
    with pytest.raises(ZeroDivisionError) as told:
        await bad
    assert any(entry.name == "<lambda>" for entry in told.traceback), "where it happened"
    assert await good == 1
    assert gate.calls == 1
    figures = coordinator.stats().operations[name]
    assert (figures.submitted, figures.failed, figures.completed) == (2, 1, 1)
    assert figures.waiting == 0


async def test_a_key_that_cannot_be_hashed(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name, key=lambda value: value)(gate)
    with pytest.raises(TypeError, match="unhashable"):
        await guarded([])
    with pytest.raises(LookupError, match="no hash"):
        await guarded(Unfortunate(hashes=False))
    assert gate.calls == 0


async def test_a_key_that_cannot_be_compared(
    coordinator: Coordinator, gate: Gate, name: str
) -> None:
    guarded = task_token_guard(name, key=lambda value: value)(gate)
    first = guarded(Unfortunate(hashes=True))
    await gate.entered()
    with pytest.raises(LookupError, match="no comparison"):
        await guarded(Unfortunate(hashes=True))
    gate.open()
    await first
    await coordinator.drain()
    assert await guarded(3) == 3


async def test_a_key_function_that_exits(coordinator: Coordinator, name: str, same: Same) -> None:
    def leave(value: Any) -> None:
        raise SystemExit(3)

    guarded = task_token_guard(name, key=leave)(same)
    with pytest.raises(FunctionExited) as told:
        await guarded("a")
    assert isinstance(told.value.__cause__, SystemExit)


async def test_a_map_tells_of_keys_that_cannot_be_had(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, key=lambda value: 1 // value)(_text)
    results = await guarded.map([1, 0, 2], return_exceptions=True)
    assert [type(each) for each in results] == [str, ZeroDivisionError, str]
    with pytest.raises(ZeroDivisionError):
        await guarded.map([1, 0, 2])
    assert [await each for each in await guarded.map([3, 4], tokens=True)] == ["3", "4"]


def _text(value: object) -> str:
    return str(value)


def test_a_map_on_a_plain_thread_tells_as_well(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, key=lambda value: 1 // value)(_text)
    results = list(guarded.map([0, 1, 0, 2], return_exceptions=True))
    assert [type(each) for each in results] == [ZeroDivisionError, str, ZeroDivisionError, str]
