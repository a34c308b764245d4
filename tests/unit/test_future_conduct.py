"""Everything in asyncio that takes awaitables, given tokens: on plain loops, on loops in debug mode,
on loops whose tasks start at once, and on uvloop. Where a test takes `pending`, asyncio's own future
has gone through the same body."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, Pending

    NewPending = Callable[[], Pending]

TIMEOUT = 20.0

Run = Callable[[Coroutine[Any, Any, None]], None]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@task_token_guard
def add(a: int, b: int = 1) -> int:
    return a + b


@task_token_guard
def fail() -> None:
    raise LookupError("gone")


@pytest.fixture(params=["plain", "debug", "eager", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """`asyncio.run` on a loop of that kind."""
    kind: str = request.param
    if kind == "eager" and sys.version_info < (3, 12):
        pytest.skip("tasks cannot start at once before Python 3.12")
    factory = asyncio.new_event_loop
    if kind == "uvloop":
        factory = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        async def main() -> None:
            # else a busy machine is worth a message in debug mode
            asyncio.get_running_loop().slow_callback_duration = TIMEOUT
            if kind == "eager":
                asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            async with asyncio.timeout(TIMEOUT):
                await coroutine

        with asyncio.Runner(debug=kind == "debug", loop_factory=factory) as runner:
            runner.run(main())

    return run


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- gather --------------------------------------------------------------------------------------


def test_a_gather_that_is_cancelled_says_so_with_its_message(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        ones = [pending() for _ in range(3)]
        gathering = asyncio.gather(*[one.future for one in ones])
        await turns()
        assert gathering.cancel("enough")
        with pytest.raises(asyncio.CancelledError) as caught:
            await gathering
        assert caught.value.args == ("enough",)
        assert all(one.future.cancelled() for one in ones)

    run(main())


def test_a_gather_of_gathers_and_coroutines(run: Run, pending: NewPending) -> None:
    async def wait(one: Any) -> Any:
        return await one

    async def main() -> None:
        a, b, c = [pending() for _ in range(3)]
        gathering = asyncio.gather(a.future, asyncio.gather(b.future, wait(c.future)))
        for number, one in enumerate([c, b, a]):
            one.finish(number)
        assert await gathering == [2, [1, 0]]

    run(main())


# -- wait ----------------------------------------------------------------------------------------


def test_wait_first_completed(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        a, b = pending(), pending()
        b.finish(1)
        done, left = await asyncio.wait([a.future, b.future], return_when=asyncio.FIRST_COMPLETED)
        assert (done, left) == ({b.future}, {a.future})
        assert not a.future.cancelled()
        a.finish(None)
        await a.future

    run(main())


def test_wait_first_exception(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        a, b, c = [pending() for _ in range(3)]
        a.finish(1)
        await a.future
        waiting = asyncio.ensure_future(
            asyncio.wait([one.future for one in (a, b, c)], return_when=asyncio.FIRST_EXCEPTION)
        )
        await turns()
        assert not waiting.done()
        b.fail(LookupError())
        done, left = await waiting
        assert (done, left) == ({a.future, b.future}, {c.future})
        assert isinstance(b.future.exception(), LookupError)
        c.finish(None)
        await c.future

    run(main())


def test_wait_first_exception_goes_on_past_a_cancelled_one(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        a, b = pending(), pending()
        waiting = asyncio.ensure_future(
            asyncio.wait([a.future, b.future], return_when=asyncio.FIRST_EXCEPTION)
        )
        await turns()
        a.future.cancel()
        await turns()
        assert not waiting.done()
        b.finish(1)
        done, left = await waiting
        assert (done, left) == ({a.future, b.future}, set())

    run(main())


def test_wait_all_completed(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        ones = [pending() for _ in range(3)]
        waiting = asyncio.ensure_future(asyncio.wait([one.future for one in ones]))
        ones[0].fail(LookupError())
        await asyncio.wait([ones[0].future])
        ones[1].future.cancel()
        await turns()
        assert not waiting.done()
        ones[2].finish(1)
        done, left = await waiting
        assert (done, left) == ({one.future for one in ones}, set())
        assert isinstance(ones[0].future.exception(), LookupError)

    run(main())


# -- wait_for, timeout ---------------------------------------------------------------------------


def test_wait_for_no_time_at_all(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        a, b = pending(), pending()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(a.future, 0)
        assert a.future.cancelled()
        b.finish(1)
        await b.future
        assert await asyncio.wait_for(b.future, 0) == 1

    run(main())


def test_wait_for_without_end(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        one.finish(1)
        assert await asyncio.wait_for(one.future, None) == 1

    run(main())


def test_wait_for_is_cancelled_with_a_message(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()

        async def wait() -> None:
            await asyncio.wait_for(one.future, TIMEOUT)

        task = asyncio.create_task(wait())
        await turns()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("enough",)
        assert one.future.cancelled()

    run(main())


def test_the_innermost_timeout_is_the_one_that_passed(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        async with asyncio.timeout(TIMEOUT) as outer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as inner:
                    inner.reschedule(0)
                    await one.future
        assert inner.expired()
        assert not outer.expired()
        assert one.future.cancelled()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main())


# -- shield --------------------------------------------------------------------------------------


def test_shield_of_one_that_is_cancelled(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        shield = asyncio.shield(one.future)
        one.future.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await shield

    run(main())


def test_shield_of_one_that_has_ended_is_itself(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        one.finish(1)
        await one.future
        assert asyncio.shield(one.future) is one.future

    run(main())


def test_shield_left_by_its_waiter(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()

        async def wait() -> None:
            await asyncio.shield(one.future)

        task = asyncio.create_task(wait())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not one.future.done()
        one.finish(1)
        assert await one.future == 1

    run(main())


# -- as_completed --------------------------------------------------------------------------------


def test_as_completed_in_the_order_they_end(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        ones = [pending() for _ in range(3)]
        order = [2, 0, 1]
        came = []
        coming = asyncio.as_completed([one.future for one in ones])
        for number, each in zip(order, coming, strict=True):
            ones[number].finish(number)
            came.append(await each)
        assert came == order

    run(main())


def test_as_completed_until_its_timeout(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        a, b = pending(), pending()
        a.finish(1)
        await a.future
        coming = iter(asyncio.as_completed([a.future, b.future], timeout=0.01))
        assert await next(coming) == 1
        with pytest.raises(TimeoutError):
            await next(coming)
        assert not b.future.done()
        b.finish(None)
        await b.future

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="an iterator only before Python 3.13")
def test_as_completed_gives_the_tokens_themselves(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        ones = [pending() for _ in range(3)]
        order = [1, 2, 0]
        came = []
        ones[1].finish(1)
        coming: Any = asyncio.as_completed([one.future for one in ones])
        async for each in coming:
            came.append(next(i for i in range(3) if ones[i].future is each))
            assert await each == came[-1]
            if len(came) < 3:
                ones[order[len(came)]].finish(order[len(came)])
        assert came == order

    run(main())


# -- tasks ---------------------------------------------------------------------------------------


def test_a_task_group_around_those_who_await(run: Run, pending: NewPending) -> None:
    async def wait(one: Any) -> Any:
        return await one

    async def main() -> None:
        a, b, c = [pending() for _ in range(3)]
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                first, *_ = [group.create_task(wait(one.future)) for one in (a, b, c)]
                a.finish(1)
                await first
                b.fail(LookupError("gone"))
        assert first.result() == 1
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        assert c.future.cancelled()

    run(main())


def test_no_task_is_made(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        ones = [pending() for _ in range(3)]
        gathering = asyncio.gather(*[asyncio.ensure_future(one.future) for one in ones])
        assert asyncio.all_tasks() == before
        for one in ones:
            one.finish(None)
        await gathering
        assert asyncio.all_tasks() == before

    run(main())


def test_what_makes_futures_of_awaitables_gives_it_back(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        assert asyncio.ensure_future(one.future) is one.future
        assert asyncio.wrap_future(one.future) is one.future
        one.finish(1)
        assert await asyncio.wrap_future(one.future) == 1

    run(main())


def test_it_belongs_to_one_loop(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        other = asyncio.new_event_loop()
        try:
            with pytest.raises(ValueError, match="loop"):
                asyncio.ensure_future(one.future, loop=other)  # noqa: RUF006 - there is none
            with pytest.raises(ValueError, match="loop"):
                asyncio.gather(one.future, other.create_future())
        finally:
            other.close()
        one.finish(1)
        assert await one.future == 1

    run(main())


def test_it_is_no_coroutine(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        with pytest.raises(TypeError, match="coroutine was expected|not a coroutine"):
            asyncio.create_task(one.future)  # noqa: RUF006 - there will be none
        with pytest.raises(TypeError, match="coroutine object is required"):
            asyncio.run_coroutine_threadsafe(one.future, asyncio.get_running_loop())
        async with asyncio.TaskGroup() as group:
            with pytest.raises(TypeError, match="coroutine was expected|not a coroutine"):
                group.create_task(one.future)
        one.finish(1)
        assert await one.future == 1

    run(main())


def test_run_takes_it_from_the_version_that_takes_awaitables(coordinator: Coordinator) -> None:
    token = add(1)
    if sys.version_info >= (3, 14):
        assert asyncio.run(token) == 2  # type: ignore[arg-type]
    else:
        with pytest.raises((TypeError, ValueError), match="coroutine was expected"):
            asyncio.run(token)  # type: ignore[arg-type]
        assert token.result(TIMEOUT) == 2


def test_from_another_thread(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one, other = pending(), pending()
        loop = asyncio.get_running_loop()

        async def wait(future: Any) -> Any:
            return await future

        def ask(future: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(wait(future), loop).result(TIMEOUT)

        one.finish(1)
        assert await asyncio.to_thread(ask, one.future) == 1
        other.fail(LookupError("gone"))
        with pytest.raises(LookupError, match="gone"):
            await asyncio.to_thread(ask, other.future)

    run(main())


def test_a_cancelled_task_hands_its_message_on(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()

        async def wait() -> Any:
            try:
                await one.future
            except asyncio.CancelledError as error:
                return error.args

        task = asyncio.create_task(wait())
        await turns()
        task.cancel("enough")
        assert await task == ("enough",)
        assert one.future.cancelled()
        assert one.future._cancel_message == "enough"

    run(main())


def test_a_task_tells_what_it_waits_for(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()

        async def wait() -> Any:
            return await one.future

        task = asyncio.create_task(wait())
        await turns()
        assert f"wait_for={one.future!r}" in repr(task)
        one.finish(1)
        assert await task == 1

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start at once from Python 3.12 on")
def test_a_task_that_starts_at_once_awaits_it(pending: NewPending) -> None:
    async def wait(future: Any) -> Any:
        before = asyncio.current_task()
        result = await future
        assert asyncio.current_task() is before
        return result

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        one = pending()
        me = asyncio.current_task()
        waiting = asyncio.create_task(wait(one.future))
        assert asyncio.current_task() is me
        assert not waiting.done()
        one.finish(1)
        assert await waiting == 1
        at_once = asyncio.create_task(wait(one.future))
        assert at_once.done()
        assert at_once.result() == 1
        assert asyncio.all_tasks() == {me}

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


# -- callbacks -----------------------------------------------------------------------------------


def test_awaiters_and_callbacks_in_the_order_they_came(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        came: list[str] = []

        async def wait(name: str) -> None:
            await one.future
            came.append(name)

        first = asyncio.create_task(wait("first"))
        await turns()
        one.future.add_done_callback(lambda _: came.append("callback"))
        second = asyncio.create_task(wait("second"))
        await turns()
        one.finish(None)
        await asyncio.gather(first, second)
        assert came == ["first", "callback", "second"]

    run(main())


def test_a_callback_has_the_context_it_was_added_in(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        came: asyncio.Queue[tuple[str, object]] = asyncio.Queue()

        def note(_: object) -> None:
            came.put_nowait((variable.get(), threading.get_ident()))

        variable.set("added")
        one.future.add_done_callback(note)
        given = contextvars.copy_context()
        given.run(variable.set, "given")
        one.future.add_done_callback(note, context=given)
        variable.set("later")
        one.finish(None)
        here = threading.get_ident()
        assert [await came.get(), await came.get()] == [("added", here), ("given", here)]

    run(main())


def test_a_callback_that_raises_is_told_to_the_loop(run: Run, pending: NewPending) -> None:
    async def main() -> None:
        one = pending()
        told: asyncio.Queue[Any] = asyncio.Queue()
        asyncio.get_running_loop().set_exception_handler(lambda _, about: told.put_nowait(about))

        def spoil(_: object) -> None:
            raise LookupError("in the callback")

        one.future.add_done_callback(spoil)
        one.finish(1)
        about = await told.get()
        assert "spoil" in about["message"]
        assert str(about["exception"]) == "in the callback"
        assert await one.future == 1

    run(main())


def test_a_failure_nobody_asked_for_is_told_to_the_loop(run: Run, coordinator: Coordinator) -> None:
    async def main() -> None:
        told: asyncio.Queue[Any] = asyncio.Queue()
        asyncio.get_running_loop().set_exception_handler(lambda _, about: told.put_nowait(about))
        fail()
        while told.empty():
            # on a free-threaded build only the collector lets go of what a parked worker has made
            gc.collect()
            await asyncio.sleep(0)
        about = told.get_nowait()
        assert "exception was never retrieved" in about["message"]
        assert isinstance(about["exception"], LookupError)

    run(main())


def test_slow_callbacks_are_told_in_debug_mode(
    coordinator: Coordinator, gate: Gate, logged: list[Any]
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        token: Token[Any] = coordinator.submit(gate)
        ended = asyncio.Event()
        token.add_done_callback(lambda _: ended.set())
        await gate.entered()
        loop.slow_callback_duration = 0
        gate.open()
        await ended.wait()
        loop.slow_callback_duration = TIMEOUT

    asyncio.run(asyncio.wait_for(main(), TIMEOUT), debug=True)
    told = [record.getMessage() for record in logged]
    logged.clear()
    assert any("tokengate" in each and "ended tokens" in each for each in told), told
