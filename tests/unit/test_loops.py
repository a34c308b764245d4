"""Tokens on event loops: several at once, closed, freed and reused ones, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, Token, TokenState, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import Gate

TIMEOUT = 20.0

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@task_token_guard
def add(a: int, b: int = 1) -> int:
    return a + b


@task_token_guard
def fail() -> None:
    raise LookupError


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """Makes event loops of one kind."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    factory: NewLoop = uvloop.new_event_loop
    return factory


@pytest.fixture
def run(new_loop: NewLoop) -> Callable[[Any], Any]:
    """`asyncio.run` on a loop of that kind."""

    def run(coroutine: Any) -> Any:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(asyncio.wait_for(coroutine, TIMEOUT))

    return run


@pytest.fixture
def loop(new_loop: NewLoop) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that the test runs when it likes."""
    loop = new_loop()
    yield loop
    if not loop.is_closed():
        loop.close()


Run = Callable[[Any], Any]


# -- one loop ------------------------------------------------------------------------------------


def test_everything_asyncio_does_with_futures(coordinator: Coordinator, run: Run) -> None:
    async def main() -> None:
        assert await add(1) == 2
        assert await asyncio.gather(*[add(i) for i in range(1_000)]) == list(range(1, 1_001))
        waited: Any = [add(i) for i in range(50)]  # typeshed knows no futures but asyncio's own
        done, pending = await asyncio.wait(waited)
        assert (len(done), len(pending)) == (50, 0)
        assert sorted([await each for each in asyncio.as_completed([add(1), add(2)])]) == [2, 3]
        assert await asyncio.wait_for(add(1), TIMEOUT) == 2
        assert await asyncio.shield(add(1)) == 2
        with pytest.raises(LookupError):
            await fail()
        results = await asyncio.gather(fail(), add(1), return_exceptions=True)
        assert [type(result) for result in results] == [LookupError, int]
        assert await add.map(range(1_000)) == list(range(1, 1_001))
        assert [result async for result in add.map(range(1_000))] == list(range(1, 1_001))
        assert await tokengate.gather(*[add(i) for i in range(1_000)]) == list(range(1, 1_001))
        async with asyncio.timeout(TIMEOUT):
            assert await add(2) == 3

    run(main())


def test_one_loop_after_another(coordinator: Coordinator, run: Run) -> None:
    async def main(i: int) -> list[int]:
        return await asyncio.gather(*[add(i + k) for k in range(10)])

    for i in range(50):
        assert run(main(i)) == list(range(i + 1, i + 11))


def test_a_loop_run_in_pieces(coordinator: Coordinator, loop: asyncio.AbstractEventLoop) -> None:
    async def begin() -> tuple[Token[int], asyncio.Event]:
        token, delivered = add(1), asyncio.Event()
        token.add_done_callback(lambda _: delivered.set())
        return token, delivered

    async def finish(token: Token[int], delivered: asyncio.Event) -> int:
        await asyncio.wait_for(delivered.wait(), TIMEOUT)
        return await token

    for _ in range(20):
        token, delivered = loop.run_until_complete(begin())
        assert token.result(TIMEOUT) == 2  # it ends while the loop stands still
        assert loop.run_until_complete(finish(token, delivered)) == 2


def test_cancelling_the_awaiting_task(single: Coordinator, gate: Gate, run: Run) -> None:
    async def main() -> None:
        executing, waiting = single.submit(gate), single.submit(add, 1)
        await asyncio.to_thread(gate.wait_entered)
        for token in (waiting, executing):
            awaiting = asyncio.ensure_future(_await(token))
            await asyncio.sleep(0)
            awaiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await awaiting
            assert token.state is TokenState.CANCELLED
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(single.submit(gate), 0)
        gate.open()

    run(main())


async def _await(token: Token[Any]) -> Any:
    return await token


def test_a_blocked_loop_gets_everything_afterwards(coordinator: Coordinator, run: Run) -> None:
    async def main() -> None:
        tokens = [add(i) for i in range(5_000)]
        gathering = asyncio.gather(*tokens)
        await asyncio.sleep(0)
        while not all(token.done() for token in tokens):  # blocks the loop, as a careless user does
            threading.Event().wait(0.001)
        assert await gathering == list(range(1, 5_001))

    run(main())


# -- several loops -------------------------------------------------------------------------------


def test_several_loops_in_several_threads(coordinator: Coordinator, run: Run) -> None:
    together = threading.Barrier(6)

    async def main(base: int) -> list[int]:
        results = await asyncio.gather(*[add(base + i) for i in range(500)])
        results += await add.map(range(base, base + 500))
        for i in range(50):
            results.append(await add(base + i))
        return results

    def thread(base: int) -> list[int]:
        together.wait(TIMEOUT)
        with use(coordinator):
            result: list[int] = run(main(base))
            return result

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(thread, range(0, 6_000, 1_000)))
    for i, result in enumerate(results):
        base = 1_000 * i + 1
        whole = list(range(base, base + 500))
        assert result == [*whole, *whole, *whole[:50]]


def test_made_in_a_thread_without_a_loop_awaited_on_one(
    coordinator: Coordinator, gate: Gate, run: Run
) -> None:
    pending, ended = coordinator.submit(gate, "value"), add(1)
    assert ended.result(TIMEOUT) == 2

    async def main() -> None:
        asyncio.get_running_loop().call_later(0, gate.open)
        assert await pending == "value"
        assert await ended == 2
        assert pending.get_loop() is asyncio.get_running_loop()
        assert list(await asyncio.gather(pending, ended)) == ["value", 2]

    run(main())


def test_made_in_a_thread_beside_the_loop(coordinator: Coordinator, run: Run) -> None:
    async def main() -> None:
        for _ in range(50):
            token = await asyncio.to_thread(lambda: add(1))
            assert await token == 2

    run(main())


def test_awaited_on_another_loop_than_its_own(
    coordinator: Coordinator, gate: Gate, run: Run
) -> None:
    async def make() -> Token[Any]:
        token: Token[Any] = coordinator.submit(gate, "value")
        awaited = asyncio.ensure_future(_await(token))
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(run, _await(token))
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(run, tokengate.gather(token)._gather())
        for several in (asyncio.gather, asyncio.wait_for):
            with pytest.raises((RuntimeError, ValueError), match="loop"):
                await asyncio.to_thread(run, _call(several, token))
        gate.open()
        await awaited
        return token

    async def _call(several: Any, token: Token[Any]) -> Any:
        if several is asyncio.gather:
            return await asyncio.gather(token, add(1))
        return await asyncio.wait_for(token, TIMEOUT)

    token = run(make())
    assert token.result() == "value"
    assert run(_await(token)) == "value"  # one that has ended waits for no loop


def test_a_token_of_a_closed_loop(coordinator: Coordinator, gate: Gate, run: Run) -> None:
    async def make() -> Token[Any]:
        return coordinator.submit(gate, "value")

    token = run(make())
    with pytest.raises(RuntimeError, match="another event loop"):
        run(_await(token))
    gate.open()
    assert token.result(TIMEOUT) == "value"


# -- loops that close ----------------------------------------------------------------------------


def test_the_loop_closes_with_tokens_in_flight(
    single: Coordinator, gate: Gate, run: Run, unraisable: list[Any]
) -> None:
    tokens: list[Token[Any]] = []

    async def main() -> None:
        tokens.append(single.submit(gate, 0))
        tokens.extend(single.submit(add, i) for i in range(1_000))
        for token in tokens:
            token.add_done_callback(lambda _: pytest.fail("the loop is closed"))

    run(main())
    gate.open()
    assert [token.result(TIMEOUT) for token in tokens] == [0, *range(1, 1_001)]


def test_the_loop_closes_while_a_task_awaits(
    single: Coordinator, gate: Gate, run: Run, unraisable: list[Any]
) -> None:
    tokens: list[Token[Any]] = []

    async def main() -> None:
        tokens.extend(single.submit(gate, i) for i in range(100))
        background = [asyncio.ensure_future(_await(token)) for token in tokens[:50]]
        await asyncio.sleep(0)
        assert not any(task.done() for task in background)

    run(main())  # which cancels the tasks it leaves, and they their tokens
    gate.open()
    assert {token.state for token in tokens[:50]} == {TokenState.CANCELLED}
    assert [token.result(TIMEOUT) for token in tokens[50:]] == list(range(50, 100))


def test_the_loop_closes_under_finishing_tokens(coordinator: Coordinator, run: Run) -> None:
    """Whatever moment it is: the tokens end, and nobody complains."""
    left: list[Token[int]] = []

    async def main(wait_for: int) -> None:
        tokens = [add(i) for i in range(200)]
        for token in tokens:
            token.add_done_callback(lambda _: None)
        left.extend(tokens)
        await tokens[wait_for]

    for i in range(0, 200, 5):
        run(main(i))
    for place, token in enumerate(left):
        assert token.result(TIMEOUT) == place % 200 + 1


def test_callbacks_added_when_the_loop_has_closed(
    coordinator: Coordinator, gate: Gate, run: Run
) -> None:
    async def make() -> tuple[Token[Any], Token[Any]]:
        ended = add(1)
        await ended
        return ended, coordinator.submit(gate, "value")

    ended, pending = run(make())
    with pytest.raises(RuntimeError, match="loop"):
        ended.add_done_callback(print)
    gate.open()
    assert pending.result(TIMEOUT) == "value"


def test_a_failure_nobody_asks_for_when_the_loop_has_closed(
    coordinator: Coordinator, gate: Gate, run: Run, logged: list[Any]
) -> None:
    def fails() -> None:
        gate()
        raise LookupError("not asked for")

    async def make() -> None:
        coordinator.submit(fails)

    run(make())
    gate.wait_entered()
    gate.open()
    coordinator.stop()
    gc.collect()
    [record] = logged
    assert "never retrieved" in record.getMessage()
    logged.clear()


def test_a_freed_loop_whose_address_is_reused(
    coordinator: Coordinator, new_gate: Callable[[], Gate], new_loop: NewLoop
) -> None:
    """A token of a loop that is gone must never reach a new one that has its address."""

    async def leave(gate: Gate) -> Token[Any]:
        token: Token[Any] = coordinator.submit(gate, "old")
        token.add_done_callback(lambda _: pytest.fail("its loop is gone"))
        return token

    async def use_new(old: Token[Any], gate: Gate) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await old
        with pytest.raises(RuntimeError, match="no living event loop"):
            old.get_loop()
        gate.open()
        assert await asyncio.wait_for(asyncio.gather(*[add(i) for i in range(20)]), TIMEOUT) == [
            *range(1, 21)
        ]

    def loop_at(address: int) -> asyncio.AbstractEventLoop | None:
        """A new loop at that address, if the allocator gives one soon."""
        with contextlib.ExitStack() as others:
            for _ in range(100):
                loop = new_loop()
                if id(loop) == address:
                    return loop
                others.callback(loop.close)
        return None

    def reused() -> bool:
        gate = new_gate()
        loop = new_loop()
        address, freed = id(loop), weakref.ref(loop)
        old = loop.run_until_complete(leave(gate))
        loop.close()
        del loop
        gc.collect()
        assert freed() is None
        again = loop_at(address)
        if again is None:
            gate.open()
        else:
            again.run_until_complete(use_new(old, gate))
            again.close()
        assert old.result(TIMEOUT) == "old"
        return again is not None

    if not any(reused() for _ in range(50)):
        pytest.skip("the allocator reused no loop's address, so there was nothing to mistake")


# -- no loop -------------------------------------------------------------------------------------


def test_awaited_where_no_loop_runs(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, "value")
    with pytest.raises(RuntimeError, match="no asyncio event loop"):
        _await(token).send(None)
    with pytest.raises(RuntimeError, match="event loop"):
        token.add_done_callback(print)
    with pytest.raises(RuntimeError, match="event loop"):
        token.get_loop()
    gate.open()
    assert token.result(TIMEOUT) == "value"
    with pytest.raises(StopIteration) as stop:
        _await(token).send(None)  # one that has ended waits for no loop
    assert stop.value.value == "value"


def test_under_anyio_on_asyncio(coordinator: Coordinator) -> None:
    anyio = pytest.importorskip("anyio", reason="anyio is not installed")

    async def main() -> None:
        assert await add(1) == 2
        results = []

        async def one(i: int) -> None:
            results.append(await add(i))

        async with anyio.create_task_group() as group:
            for i in range(20):
                group.start_soon(one, i)
        assert sorted(results) == list(range(1, 21))
        with anyio.move_on_after(0.01):
            await coordinator.submit(threading.Event().wait, 0.05)

    anyio.run(main)
