"""Tokens and event loops: several loops, closed loops, loops that are gone, and no loop at all."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token, TokenState, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import Gate


@task_token_guard
def double(x: int) -> int:
    return 2 * x


async def test_awaited_on_another_loop_it_says_so_and_nothing_hangs(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate, "value")

    async def elsewhere() -> str:
        with pytest.raises(RuntimeError, match="another event loop"):
            await token
        # In some versions asyncio itself looks at the loop first.
        with pytest.raises((RuntimeError, ValueError)):
            await asyncio.gather(token)
        with pytest.raises((RuntimeError, ValueError)):
            await asyncio.wait_for(token, 20)
        return "told"

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == "told"
    assert not token.cancelled()
    gate.open()
    assert await token == "value"  # its own loop is none the worse for it


async def test_once_it_has_ended_any_loop_may_ask(coordinator: Coordinator) -> None:
    token = coordinator.submit(int, "5")
    await token

    async def elsewhere() -> int:
        return await token

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == 5


def test_made_off_any_loop_it_belongs_to_the_first_that_awaits_it(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate, "value")
    awaiting = threading.Event()

    async def first() -> Any:
        task = asyncio.ensure_future(one())
        await asyncio.sleep(0)
        awaiting.set()
        return await task

    async def one() -> Any:
        return await token

    async def second() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await token

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, first())
        assert awaiting.wait(20)
        asyncio.run(second())
        gate.open()
        assert running.result(20) == "value"


def test_several_loops_in_several_threads_share_a_coordinator(coordinator: Coordinator) -> None:
    meet = threading.Barrier(6)

    async def main(first: int) -> list[int]:
        meet.wait(20)
        with use(coordinator):
            return await asyncio.gather(*[double(i) for i in range(first, first + 300)])

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        runs = [pool.submit(asyncio.run, main(i)) for i in range(6)]
        for i, run in enumerate(runs):
            assert run.result(60) == [2 * j for j in range(i, i + 300)]


def test_one_loop_after_another(coordinator: Coordinator) -> None:
    # A loop's memory, and with it its address, is used again and again.
    async def main(i: int) -> int:
        return await coordinator.submit(int, i)

    assert [asyncio.run(main(i)) for i in range(100)] == list(range(100))


def test_a_token_of_a_loop_that_is_gone_is_not_taken_for_one_of_its_successor(
    coordinator: Coordinator, gate: Gate
) -> None:
    async def make() -> Token[Any]:
        return coordinator.submit(gate, "value")

    async def ask(token: Token[Any]) -> None:
        with pytest.raises(RuntimeError):
            await token

    tokens = [asyncio.run(make()) for _ in range(4)]
    gc.collect()
    for token in tokens:
        asyncio.run(ask(token))
        with pytest.raises(RuntimeError):
            token.get_loop()
    gate.open()
    assert [token.result(20) for token in tokens] == ["value"] * 4


def test_a_loop_closed_with_tokens_in_flight(coordinator: Coordinator, gate: Gate) -> None:
    tokens: list[Token[Any]] = []
    calls: list[Any] = []

    async def main() -> None:
        tokens.extend(coordinator.submit(gate, i) for i in range(50))
        for token in tokens:
            token.add_done_callback(calls.append)
        await asyncio.sleep(0)

    asyncio.run(main())
    gate.open()
    assert [token.result(20) for token in tokens] == list(range(50))
    assert calls == []
    assert all(token.state is TokenState.COMPLETED for token in tokens)


def test_a_loop_closed_before_a_cancelled_token_was_delivered(
    coordinator: Coordinator, gate: Gate
) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> Token[Any]:
        token = coordinator.submit(gate)
        token.add_done_callback(lambda _: None)
        return token

    token = loop.run_until_complete(begin())
    token.cancel()
    loop.close()
    with pytest.raises(concurrent.futures.CancelledError):
        token.result(20)
    gate.open()


def test_a_closed_loop_is_not_kept_by_its_tokens(coordinator: Coordinator, gate: Gate) -> None:
    kept: list[Token[Any]] = []

    def run() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()

        async def main() -> None:
            kept.append(coordinator.submit(gate))
            kept.append(coordinator.submit(int))
            await kept[1]

        loop.run_until_complete(main())
        loop.close()
        return weakref.ref(loop)

    ref = run()
    gc.collect()
    assert ref() is None
    gate.open()
    assert kept[0].result(20) is None


def test_a_stopped_loop_that_runs_again_delivers(coordinator: Coordinator, gate: Gate) -> None:
    loop = asyncio.new_event_loop()
    try:

        async def begin() -> asyncio.Task[Any]:
            async def ask() -> Any:
                return await coordinator.submit(gate, "value")

            task = asyncio.ensure_future(ask())
            await asyncio.sleep(0)
            return task

        task = loop.run_until_complete(begin())
        gate.open()
        asyncio.run(coordinator.drain())
        assert not task.done()
        assert loop.run_until_complete(asyncio.wait_for(task, 20)) == "value"
    finally:
        loop.close()


def test_awaited_where_no_loop_runs_it_says_so(coordinator: Coordinator) -> None:
    blocked = threading.Event()
    token = coordinator.submit(blocked.wait, 20)

    async def ask() -> Any:
        return await token

    coroutine = ask()
    with pytest.raises(RuntimeError, match="no asyncio event loop"):
        coroutine.send(None)
    blocked.set()
    assert token.result(20) is True


def test_a_coroutine_that_awaits_an_ended_token_needs_no_loop(coordinator: Coordinator) -> None:
    token = coordinator.submit(int, "5")
    token.result(20)

    async def ask() -> Any:
        return await token

    with pytest.raises(StopIteration) as caught:
        ask().send(None)
    assert caught.value.value == 5


def test_run_coroutine_threadsafe(coordinator: Coordinator) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:

        async def ask(i: int) -> int:
            return await coordinator.submit(int, i)

        futures = [asyncio.run_coroutine_threadsafe(ask(i), loop) for i in range(50)]
        assert [future.result(20) for future in futures] == list(range(50))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def test_debug_mode_of_asyncio_has_no_complaint(coordinator: Coordinator) -> None:
    async def main() -> list[int]:
        with use(coordinator):
            tokens = [double(i) for i in range(50)]
            return await asyncio.gather(*tokens) + await double.map(range(50))

    assert asyncio.run(main(), debug=True) == [2 * i for i in range(50)] * 2


async def test_the_loop_turns_while_tokens_run(coordinator: Coordinator, gate: Gate) -> None:
    tokens = [coordinator.submit(gate) for _ in range(4)]
    gate.wait_entered(4)
    for _ in range(100):
        await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(*tokens)


async def test_a_loop_with_callbacks_of_its_own_is_not_starved_by_ends(
    coordinator: Coordinator, gate: Gate
) -> None:
    # Draining goes in slices: other callbacks have their turn in between.
    held = [coordinator.submit(gate) for _ in range(4)]
    gate.wait_entered(4)
    gathered = asyncio.gather(*[coordinator.submit(int) for _ in range(30_000)], *held)
    await asyncio.sleep(0)
    gate.open()
    drained = threading.Thread(target=lambda: asyncio.run(coordinator.drain()))
    drained.start()
    drained.join(60)  # this loop does not turn meanwhile
    turns = 0
    while not gathered.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 3
    assert len(await gathered) == 30_004
