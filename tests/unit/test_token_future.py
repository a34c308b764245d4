"""A token where asyncio expects a future: one body, run against a token and against a future."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token

if TYPE_CHECKING:
    from tests.conftest import Gate, Pending

    NewPending = Callable[[], Pending]


async def soon(act: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(act)


def test_asyncio_takes_it_for_a_future(pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        assert asyncio.isfuture(one.future)
        assert asyncio.ensure_future(one.future) is one.future
        assert one.future.get_loop() is asyncio.get_running_loop()
        assert inspect.isawaitable(one.future)
        assert isinstance(one.future, Awaitable)
        one.finish(1)
        assert await one.future == 1

    asyncio.run(main())


async def test_pending_then_done(pending: NewPending) -> None:
    one = pending()
    assert not one.future.done()
    assert not one.future.cancelled()
    with pytest.raises(asyncio.InvalidStateError):
        one.future.result()
    with pytest.raises(asyncio.InvalidStateError):
        one.future.exception()
    one.finish("value")
    assert await one.future == "value"
    assert one.future.done()
    assert not one.future.cancelled()
    assert one.future.result() == "value"
    assert one.future.exception() is None


async def test_failed(pending: NewPending) -> None:
    one, error = pending(), LookupError("gone")
    one.fail(error)
    with pytest.raises(LookupError, match="gone") as caught:
        await one.future
    assert caught.value is error
    assert one.future.exception() is error
    assert not one.future.cancelled()
    with pytest.raises(LookupError):
        one.future.result()


async def test_awaiting_twice_gives_the_same_again(pending: NewPending) -> None:
    good, bad = pending(), pending()
    result = object()
    good.finish(result)
    assert await good.future is result
    assert await good.future is result
    bad.fail(LookupError("gone"))
    for _ in range(3):
        with pytest.raises(LookupError, match="gone"):
            await bad.future


async def test_many_tasks_await_one(pending: NewPending) -> None:
    one, result = pending(), object()

    async def ask() -> Any:
        return await one.future

    tasks = [asyncio.create_task(ask()) for _ in range(10)]
    await asyncio.sleep(0)  # one turn: all of them wait
    one.finish(result)
    assert all(value is result for value in await asyncio.gather(*tasks))


async def test_a_failure_reaches_every_awaiter_and_does_not_grow(pending: NewPending) -> None:
    one = pending()

    async def ask() -> int:
        try:
            await one.future
        except LookupError as error:
            depth, trace = 0, error.__traceback__
            while trace is not None:
                depth, trace = depth + 1, trace.tb_next
            return depth
        return 0

    one.fail(LookupError("gone"))
    depths = [await ask() for _ in range(5)]
    assert len(set(depths[1:])) == 1, depths
    assert min(depths) > 0


async def test_gather(pending: NewPending) -> None:
    ones = [pending() for _ in range(3)]
    for i, one in enumerate(reversed(ones)):
        one.finish(i)
    assert await asyncio.gather(*[one.future for one in ones]) == [2, 1, 0]


async def test_gather_names_one_several_times(pending: NewPending) -> None:
    one = pending()
    one.finish(7)
    assert await asyncio.gather(*[one.future] * 3) == [7, 7, 7]


async def test_gather_raises_the_first_failure_and_the_others_go_on(pending: NewPending) -> None:
    good, bad, other = pending(), pending(), pending()
    gathered = asyncio.gather(good.future, bad.future, other.future)
    bad.fail(LookupError("gone"))
    with pytest.raises(LookupError, match="gone"):
        await gathered
    assert not good.future.done()
    good.finish(1)
    assert await good.future == 1
    other.fail(KeyError("later"))  # gather has asked for it: nobody else needs to
    await asyncio.wait([other.future])


async def test_gather_with_a_cancelled_child(pending: NewPending) -> None:
    good, gone = pending(), pending()
    gathered = asyncio.gather(good.future, gone.future, return_exceptions=True)
    gone.future.cancel("not needed")
    good.finish(1)
    value, error = await asyncio.wait_for(gathered, 20)
    assert value == 1
    assert isinstance(error, asyncio.CancelledError)
    assert error.args == ("not needed",)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.gather(good.future, gone.future)


async def test_gather_is_cancelled_as_a_whole(pending: NewPending) -> None:
    ones = [pending() for _ in range(3)]
    ones[0].finish(0)
    await ones[0].future
    gathered = asyncio.gather(*[one.future for one in ones])
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered
    assert [one.future.cancelled() for one in ones] == [False, True, True]


@pytest.mark.parametrize(
    "when", [asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED]
)
async def test_wait(pending: NewPending, when: str) -> None:
    first, second, third = pending(), pending(), pending()
    futures = {first.future, second.future, third.future}
    waiting = asyncio.create_task(asyncio.wait(futures, return_when=when, timeout=20))
    await asyncio.sleep(0)
    first.finish(1)
    await asyncio.wait([first.future])
    if when != asyncio.FIRST_COMPLETED:
        await asyncio.sleep(0)
        assert not waiting.done()
        second.fail(LookupError("gone"))
        await asyncio.wait([second.future])
    if when == asyncio.ALL_COMPLETED:
        await asyncio.sleep(0)
        assert not waiting.done()
        third.finish(3)
    done, left = await waiting
    assert {
        asyncio.FIRST_COMPLETED: {first.future},
        asyncio.FIRST_EXCEPTION: {first.future, second.future},
        asyncio.ALL_COMPLETED: futures,
    }[when] == done
    assert left == futures - done
    if when == asyncio.FIRST_COMPLETED:
        second.finish(2)
    else:
        assert isinstance(second.future.exception(), LookupError)
    third.finish(3) if when != asyncio.ALL_COMPLETED else None
    await asyncio.wait(futures)


async def test_wait_gives_up_and_leaves_it_alone(pending: NewPending) -> None:
    one = pending()
    done, left = await asyncio.wait([one.future], timeout=0.001)
    assert (done, left) == (set(), {one.future})
    assert not one.future.done()
    one.finish(1)
    assert await one.future == 1


async def test_wait_for_in_time(pending: NewPending) -> None:
    one = pending()
    await soon(lambda: one.finish(5))
    assert await asyncio.wait_for(one.future, 20) == 5
    assert await asyncio.wait_for(one.future, 0) == 5


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
async def test_wait_for_too_late_cancels_it(pending: NewPending, seconds: float) -> None:
    one = pending()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.future, seconds)
    assert one.future.cancelled()


async def test_timeout_too_late_cancels_it(pending: NewPending) -> None:
    one = pending()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await one.future
    assert one.future.cancelled()


async def test_timeout_in_time(pending: NewPending) -> None:
    one = pending()
    async with asyncio.timeout(20):
        await soon(lambda: one.finish(5))
        assert await one.future == 5


async def test_shield_keeps_it_from_being_cancelled(pending: NewPending) -> None:
    one = pending()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(one.future), 0.001)
    assert not one.future.done()
    one.finish("still there")
    assert await asyncio.shield(one.future) == "still there"
    assert await one.future == "still there"


async def test_as_completed_gives_them_in_the_order_they_end(pending: NewPending) -> None:
    ones = [pending() for _ in range(3)]
    got = []
    coming = asyncio.as_completed([one.future for one in ones], timeout=20)
    for number, awaitable in zip((2, 0, 1), coming, strict=True):
        ones[number].finish(number)
        got.append(await awaitable)
    assert got == [2, 0, 1]


async def test_a_task_group_cancels_the_task_that_awaits_it(pending: NewPending) -> None:
    one = pending()

    async def ask() -> Any:
        return await one.future

    async def fail() -> None:
        raise LookupError("gone")

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            await asyncio.sleep(0)
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await both()
    assert one.future.cancelled()


async def test_run_until_complete_takes_it(coordinator: Coordinator) -> None:
    def elsewhere() -> int:
        loop = asyncio.new_event_loop()
        try:

            async def make() -> Token[int]:
                return coordinator.submit(int, "42")

            token = loop.run_until_complete(make())
            return loop.run_until_complete(token)
        finally:
            loop.close()

    assert await asyncio.to_thread(elsewhere) == 42


async def test_ten_thousand_through_one_gather(coordinator: Coordinator) -> None:
    tokens = [coordinator.submit(abs, -i) for i in range(10_000)]
    assert await asyncio.gather(*tokens) == list(range(10_000))


async def test_an_await_that_was_dropped_does_no_harm(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, 3)
    step = token.__await__()
    assert next(step) is token
    step.close()
    gate.open()
    assert await token == 3


async def test_resumed_by_hand_before_it_ended_says_so(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate, 3)
    step = token.__await__()
    next(step)
    with pytest.raises(RuntimeError, match="before it ended"):
        next(step)
    gate.open()
    assert await token == 3


async def test_a_coroutine_that_yields_it_without_await_is_told(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate, 3)

    class Bare:
        def __await__(self) -> Any:
            yield token  # not marked as blocking: asyncio calls that a programming error

    async def ask() -> None:
        await Bare()

    with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
        await asyncio.create_task(ask())
    gate.open()
    assert await token == 3


async def test_tasks_and_tokens_nest(
    coordinator: Coordinator,
) -> None:
    async def nest(depth: int) -> int:
        if depth == 0:
            return await coordinator.submit(int, "1")
        return await asyncio.create_task(nest(depth - 1)) + await coordinator.submit(int, "1")

    assert await nest(20) == 21


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio shows its tasks from 3.14 on")
async def test_tasks_that_await_tokens_are_shown(coordinator: Coordinator, gate: Gate) -> None:
    async def awaiting() -> None:
        await coordinator.submit(gate)

    async def gathering() -> None:
        await asyncio.gather(coordinator.submit(gate), coordinator.submit(gate))

    made = [
        asyncio.create_task(awaiting(), name="one"),
        asyncio.create_task(gathering(), name="two"),
    ]
    await asyncio.sleep(0)
    for task, function in zip(made, ("awaiting", "gathering"), strict=True):
        assert function in asyncio.format_call_graph(task)
    shown = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "asyncio",
        "ps",
        str(os.getpid()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await shown.communicate())[0].decode()
    gate.open()
    await asyncio.gather(*made)
    if shown.returncode:
        pytest.skip(f"this system does not let a process be looked into: {said.strip()[-200:]}")
    lines = said.splitlines()
    assert any("one" in line and "awaiting" in line for line in lines), said
    assert any("two" in line and "gathering" in line for line in lines), said


def test_where_asyncio_wants_a_coroutine_it_says_so(coordinator: Coordinator) -> None:
    async def tasks(token: Any) -> None:
        with pytest.raises(TypeError, match="a coroutine was expected"):
            await asyncio.create_task(token)
        async with asyncio.TaskGroup() as group:
            with pytest.raises(TypeError, match="a coroutine was expected"):
                group.create_task(token)

    token: Any = coordinator.submit(int, "7")
    asyncio.run(tasks(token))
    if sys.version_info < (3, 14):
        with pytest.raises(ValueError, match="a coroutine was expected"):
            asyncio.run(token)
    else:  # which takes whatever can be awaited
        assert asyncio.run(token) == 7
    assert token.result(20.0) == 7  # none of it has harmed the token
