"""Tokens awaited in code written for anyio, on its asyncio backend: task groups and cancel scopes."""

from __future__ import annotations

import asyncio
import importlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    as_completed,
    current_token,
    gather,
    install,
    task_token_guard,
    use,
)

anyio: Any = pytest.importorskip("anyio", reason="anyio is not installed for this interpreter")
for part in ("from_thread", "lowlevel", "to_thread"):
    importlib.import_module(f"anyio.{part}")

if TYPE_CHECKING:
    from tests.conftest import Gate


@task_token_guard
def double(x: int) -> int:
    return 2 * x


@task_token_guard
def fail(_: int) -> int:
    raise LookupError("not here")


def test_in_task_groups(coordinator: Coordinator) -> None:
    results: list[int] = []

    async def one(i: int) -> None:
        results.append(await double(i))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for i in range(200):
                group.start_soon(one, i)

    anyio.run(main)
    assert sorted(results) == [2 * i for i in range(200)]


def test_the_first_failure_cancels_the_siblings(coordinator: Coordinator, gate: Gate) -> None:
    tokens: list[Any] = []

    async def wait() -> None:
        tokens.append(coordinator.submit(gate))
        await tokens[0]

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await gate.entered()
            await fail(1)

    with pytest.raises(BaseExceptionGroup) as caught:
        anyio.run(main)
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert tokens[0].cancelled()
    assert tokens[0].abandoned
    gate.open()


async def awaited(coordinator: Coordinator, gate: Gate) -> None:
    await coordinator.submit(gate)


async def gathered(coordinator: Coordinator, gate: Gate) -> None:
    await gather(coordinator.submit(gate), coordinator.submit(gate))


async def gathered_by_asyncio(coordinator: Coordinator, gate: Gate) -> None:
    await asyncio.gather(coordinator.submit(gate), coordinator.submit(gate))


async def mapped(coordinator: Coordinator, gate: Gate) -> None:
    await task_token_guard(gate).options(coordinator=coordinator).map(range(5))


async def mapped_and_iterated(coordinator: Coordinator, gate: Gate) -> None:
    guarded = task_token_guard(gate).options(coordinator=coordinator)
    async with guarded.map(range(5), in_flight=2) as results:
        async for _ in results:
            pass


async def as_completed_ones(coordinator: Coordinator, gate: Gate) -> None:
    async for _ in as_completed([coordinator.submit(gate)]):
        pass


WAYS = [awaited, gathered, gathered_by_asyncio, mapped, mapped_and_iterated, as_completed_ones]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_a_scope_cancels(coordinator: Coordinator, gate: Gate, way: Any) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(way, coordinator, gate)
            await gate.entered()
            group.cancel_scope.cancel()
        with anyio.move_on_after(0.01) as scope:
            await way(coordinator, gate)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await way(coordinator, gate)
        gate.open()
        assert await double(4) == 8
        await coordinator.drain()

    anyio.run(main)


def test_a_shield_holds(coordinator: Coordinator, gate: Gate) -> None:
    async def main() -> None:
        with anyio.CancelScope() as outer:
            with anyio.CancelScope(shield=True):
                token = coordinator.submit(gate, "value")
                asyncio.get_running_loop().call_soon(outer.cancel)
                asyncio.get_running_loop().call_soon(gate.open)
                assert await token == "value"
            await anyio.lowlevel.checkpoint()
        assert outer.cancelled_caught

    anyio.run(main)


def test_a_scope_that_is_cancelled_already(coordinator: Coordinator, gate: Gate) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            token = coordinator.submit(gate)
            await token
        assert scope.cancelled_caught
        assert token.cancelled()
        gate.open()

    anyio.run(main)


def test_results_through_anyios_own_streams(coordinator: Coordinator) -> None:
    async def produce(stream: Any) -> None:
        async with stream:
            async for value in double.map(range(100), in_flight=7):
                await stream.send(value)

    async def main() -> list[int]:
        send, receive = anyio.create_memory_object_stream(3)
        async with anyio.create_task_group() as group:
            group.start_soon(produce, send)
            async with receive:
                return [value async for value in receive]

    assert anyio.run(main) == [2 * i for i in range(100)]


def test_from_a_thread_of_anyio(coordinator: Coordinator) -> None:
    async def on_loop() -> int:
        with use(coordinator):
            return await double(2)

    def function() -> tuple[int, int]:
        return double(1).result(20), anyio.from_thread.run(on_loop)

    async def main() -> tuple[int, int]:
        result: tuple[int, int] = await anyio.to_thread.run_sync(function)
        return result

    assert anyio.run(main) == (2, 4)


# -- install ---------------------------------------------------------------------------------------


def test_install_with_anyio(coordinator: Coordinator) -> None:
    async def both() -> list[Any]:
        found = [await anyio.to_thread.run_sync(current_token)]
        return [*found, await asyncio.to_thread(current_token)]

    async def main() -> None:
        with use(coordinator):
            with install(anyio=True):
                assert [token.core for token in await both()] == [coordinator] * 2
                with install():
                    assert None not in await both()
            with install():
                by_anyio, by_asyncio = await both()
                assert by_anyio is None
                assert by_asyncio.core is coordinator
        assert await both() == [None, None]

    anyio.run(main)


def test_install_refuses_whole(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    from anyio._backends import _asyncio as inside

    async def main() -> None:
        monkeypatch.delattr(inside, "CapacityLimiter")
        with pytest.raises(RuntimeError, match=r"anyio .*CapacityLimiter"):
            install(anyio=True)
        assert await asyncio.to_thread(current_token) is None

    asyncio.run(main())


def test_a_thread_beside_it(coordinator: Coordinator) -> None:
    # The loop that was named is the only one.
    seen: list[Any] = []

    async def main() -> None:
        with use(coordinator), install(anyio=True):
            other = threading.Thread(
                target=lambda: seen.append(anyio.run(anyio.to_thread.run_sync, current_token))
            )
            other.start()
            await asyncio.to_thread(other.join)

    anyio.run(main)
    assert seen == [None]
