"""`tokengate.testing.inline`: calls run at once in the caller's thread, as ordinary tokens."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tokengate import (
    Coordinator,
    CoordinatorStopped,
    Executor,
    FunctionExited,
    GuardedFunction,
    Token,
    TokenCancelled,
    TokenState,
    as_completed,
    checkpoint,
    current_token,
    gather,
    get_coordinator,
    task_token_guard,
    use,
)
from tokengate.testing import inline

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def note(seen: list[Any], name: str) -> GuardedFunction[[Any], Any]:
    """A guarded function that notes its argument and thread, and returns the argument."""

    def run(value: Any) -> Any:
        seen.append((value, threading.get_ident()))
        return value

    return task_token_guard(name)(run)


def values(seen: list[Any]) -> list[Any]:
    """What the calls were given, all of them made on this thread."""
    assert {thread for _, thread in seen} <= {threading.get_ident()}
    return [value for value, _ in seen]


def finished(token: Token[Any]) -> Token[Any]:
    """A token that ran to its end, with all that belongs to one."""
    assert token.state is TokenState.COMPLETED
    assert token.done()
    created, admitted, started, ended = token.timestamps
    assert 0 < created <= admitted <= started <= ended
    assert token.run_time >= 0
    return token


# -- what a call is ----------------------------------------------------------------------------


def test_a_call_has_run_when_it_returns(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any], seen: list[Any]
) -> None:
    with inline():
        token = finished(note("a"))
    assert values(seen) == ["a"]
    assert token.result() == token.result(0) == "a"
    assert token.exception() is None
    assert token.operation_type == note.operation
    assert token.id == 1


def test_statistics_count_it(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any], name: str
) -> None:
    def fail() -> None:
        raise KeyError(1)

    with inline():
        for value in range(5):
            note(value)
        token = coordinator.submit(fail)
        with pytest.raises(KeyError):
            token.result()
    stats = coordinator.stats()
    figures = stats.operations[name]
    assert (figures.submitted, figures.completed, figures.executing, figures.waiting) == (
        5,
        5,
        0,
        0,
    )
    assert figures.run.count == figures.wait.count == 5
    assert (stats.totals.submitted, stats.totals.failed) == (6, 1)
    assert stats.lanes["thread"].workers == 0


def test_a_failure_is_the_functions_own(coordinator: Coordinator) -> None:
    error = ValueError("twelve")

    def fail() -> None:
        raise error

    with inline():
        token = coordinator.submit(fail)
    assert token.state is TokenState.FAILED
    assert token.exception() is error
    with pytest.raises(ValueError, match="twelve") as told:
        token.result()
    assert told.traceback[-1].name == "fail"


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, StopIteration, TokenCancelled])
def test_what_would_act_on_the_caller_does_not(
    coordinator: Coordinator, kind: type[BaseException]
) -> None:
    def leave() -> None:
        raise kind

    with inline():
        token = coordinator.submit(leave)
    with pytest.raises(FunctionExited) as told:
        token.result()
    assert isinstance(told.value.__cause__, kind)


def test_ctrl_c_is_the_callers(coordinator: Coordinator) -> None:
    tokens: list[Any] = []

    def interrupted() -> None:
        tokens.append(current_token())
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10_000_000):
            pass

    with inline():
        with pytest.raises(KeyboardInterrupt):
            coordinator.submit(interrupted)
        assert coordinator.submit(abs, -1).result() == 1
    assert tokens[0].state is TokenState.FAILED
    assert current_token() is None


def test_the_current_token_and_the_context(coordinator: Coordinator) -> None:
    def inside() -> tuple[Any, str]:
        before = variable.get()
        variable.set("inside")
        checkpoint()
        return current_token(), before

    variable.set("outside")
    with inline():
        token = coordinator.submit(inside)
        assert token.result() == (token, "outside")
    assert variable.get() == "outside"
    assert current_token() is None


def test_checkpoint_sees_that_the_token_has_ended(
    coordinator: Coordinator, seen: list[Any]
) -> None:
    def inside() -> None:
        token: Any = current_token()
        assert token.kill("enough")
        assert token.abandoned
        try:
            checkpoint()
        except TokenCancelled:
            seen.append("noticed")
            raise

    with inline():
        token = coordinator.submit(inside)
    assert token.state is TokenState.KILLED
    assert not token.abandoned
    assert seen == ["noticed"]
    totals = coordinator.stats().totals
    assert (totals.killed, totals.abandoned_now, totals.abandoned_total) == (1, 0, 1)


def test_methods_options_and_submit(coordinator: Coordinator, name: str) -> None:
    class Scale:
        factor = 3

        @task_token_guard(name)
        def times(self, n: int) -> int:
            return self.factor * n

    with inline():
        scale = Scale()
        assert finished(scale.times(2)).result() == 6
        tagged = finished(scale.times.options(tags={"user": "ada"}, timeout=60)(3))
        assert tagged.result() == 9
        assert tagged.tags["user"] == "ada"
        assert tagged.deadline is not None
        assert finished(coordinator.submit(scale.times, 4)).result() == 12
        assert finished(coordinator.submit(pow, 2, 10)).result() == 1024


def test_coordinators_named_elsewhere_run_inline_too(
    coordinator: Coordinator,
    single: Coordinator,
    note: GuardedFunction[[Any], Any],
    seen: list[Any],
) -> None:
    with inline():
        finished(note.options(coordinator=coordinator)("there"))
        with use(coordinator):
            finished(note("used"))
        finished(note("here"))
    assert values(seen) == ["there", "used", "here"]
    assert coordinator.stats().totals.completed == 2
    assert single.stats().totals.completed == 1


def test_a_stopped_coordinator_takes_nothing(note: GuardedFunction[[Any], Any]) -> None:
    stopped = Coordinator(name="stopped")
    stopped.stop()
    with inline(), use(stopped):
        with pytest.raises(CoordinatorStopped):
            note(1).result()
        stopped.start()
        finished(note(1))
    stopped.stop()


def test_a_function_must_not_stop_its_own_coordinator(coordinator: Coordinator) -> None:
    with inline():
        token = coordinator.submit(coordinator.stop)
    with pytest.raises(RuntimeError, match="called by a function this coordinator runs"):
        token.result()


def test_an_executor_runs_its_calls_inline_too(coordinator: Coordinator) -> None:
    with inline(), Executor(coordinator=coordinator) as executor:
        future = executor.submit(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()
        assert set(executor.map(lambda n: (n, threading.get_ident()), range(3))) == {
            (n, threading.get_ident()) for n in range(3)
        }


# -- nested ------------------------------------------------------------------------------------


def test_calls_of_the_function_run_inline_too(coordinator: Coordinator, name: str) -> None:
    threads: set[int] = set()

    @task_token_guard(name)
    def fibonacci(n: int) -> int:
        threads.add(threading.get_ident())
        mine = current_token()
        if n < 2:
            return n
        total = sum(gather(fibonacci(n - 1), fibonacci(n - 2)).result())
        assert current_token() is mine
        return total

    with inline():
        assert fibonacci(12).result() == 144
    assert threads == {threading.get_ident()}
    assert coordinator.stats().totals.completed == 465


def test_nesting_too_deep_is_an_ordinary_error(coordinator: Coordinator, name: str) -> None:
    @task_token_guard(name)
    def deeper(n: int) -> int:
        return n + deeper(n + 1).result()

    with inline():
        token = deeper(0)
    with pytest.raises(RecursionError):
        token.result()
    totals = coordinator.stats().totals
    assert totals.submitted == totals.failed


def test_between_coordinators(coordinator: Coordinator, single: Coordinator) -> None:
    def outer() -> tuple[Any, Any, Any]:
        before = current_token()
        token = coordinator.submit(current_token)
        return before, token.result() is token, current_token()

    with inline():
        token = single.submit(outer)
        assert token.result() == (token, True, token)


def test_inside_a_worker(coordinator: Coordinator, note: GuardedFunction[[Any], Any]) -> None:
    def outer() -> bool:
        mine = current_token()
        with inline():
            finished(note(1))
        return current_token() is mine

    assert coordinator.submit(outer).result(20)


# -- bulk --------------------------------------------------------------------------------------


def test_gather_and_as_completed(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any], seen: list[Any]
) -> None:
    with inline():
        assert gather(*map(note, "abc")).result() == ["a", "b", "c"]
        tokens = [note(value) for value in "def"]
        assert list(as_completed(tokens)) == tokens
    assert values(seen) == list("abcdef")


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_is_as_lazy_as_its_consumer(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any], seen: list[Any], ordered: bool
) -> None:
    with inline():
        for value in note.map(iter(range(1000)), ordered=ordered):
            assert values(seen) == list(range(value + 1))
            if value == 5:
                break
        assert values(seen) == [0, 1, 2, 3, 4, 5]
        seen.clear()
        assert list(note.starmap([(1,), (2,)], tokens=True))[1].args == (2,)
    assert values(seen) == [1, 2]


def test_the_first_failure_of_a_map_is_its_last_call(
    coordinator: Coordinator, seen: list[Any], name: str
) -> None:
    @task_token_guard(name)
    def positive(n: int) -> int:
        seen.append(n)
        if n < 0:
            raise ValueError(n)
        return n

    async def awaited() -> None:
        with pytest.raises(ValueError, match="-1"):
            await positive.map([1, 2, -1, 3])

    with inline():
        with pytest.raises(ValueError, match="-1"):
            list(positive.map([1, 2, -1, 3]))
        assert seen == [1, 2, -1]
        seen.clear()
        asyncio.run(awaited())
        assert seen == [1, 2, -1]
        results = list(positive.map([-1, 2], return_exceptions=True))
    assert isinstance(results[0], ValueError)
    assert results[1] == 2


# -- on a loop ---------------------------------------------------------------------------------


async def test_awaited_like_any_ended_token(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any], seen: list[Any]
) -> None:
    with inline():
        token = finished(note("a"))
        assert await token == await token == "a"
        assert await asyncio.gather(note("b"), note("c")) == ["b", "c"]
        assert await gather(note("d"), note("e")) == ["d", "e"]
        assert await asyncio.wait_for(note("f"), 20) == "f"
        tokens = [note("g"), note("h")]
        assert [each async for each in as_completed(tokens)] == tokens
        assert [each async for each in note.map("ij")] == ["i", "j"]
        assert await note.map("kl") == ["k", "l"]
    assert values(seen) == list("abcdefghijkl")
    task = asyncio.current_task()
    assert task is not None
    assert token.caller == task.get_name()
    assert token.get_loop() is asyncio.get_running_loop()


async def test_callbacks_come_at_the_loops_next_turn(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any], seen: list[Any]
) -> None:
    with inline():
        token = note("a")
    called: list[Any] = []
    token.add_done_callback(called.append)
    assert called == []
    await asyncio.sleep(0)
    assert called == [token]


async def test_a_map_iterated_on_a_loop_is_as_lazy_as_its_consumer(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any], seen: list[Any]
) -> None:
    with inline():
        async with note.map(iter(range(1000))) as results:
            async for value in results:
                assert values(seen) == list(range(value + 1))
                if value == 5:
                    break
    assert values(seen) == [0, 1, 2, 3, 4, 5]


async def test_the_function_sees_no_loop_and_may_run_its_own(
    coordinator: Coordinator, note: GuardedFunction[[Any], Any]
) -> None:
    async def within() -> Any:
        assert asyncio.current_task() is not outer
        return await note(await note(1)) + await asyncio.sleep(0, 1)

    def function() -> Any:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        assert sum(note.map([1, 2])) == 3
        return asyncio.run(within())

    outer = asyncio.current_task()
    loop = asyncio.get_running_loop()
    with inline():
        for _ in range(3):
            assert await coordinator.submit(function) == 2
            assert asyncio.current_task() is outer
            assert asyncio.get_running_loop() is loop
        async with asyncio.timeout(20):
            await asyncio.sleep(0)
    assert await coordinator.submit(abs, -1) == 1


# -- where it holds ----------------------------------------------------------------------------


async def test_tasks_started_inside_inherit_it_until_it_ends(
    coordinator: Coordinator, until: Callable[..., Any]
) -> None:
    after = asyncio.Event()
    here = threading.get_ident()

    async def task() -> tuple[bool, bool]:
        inside = await coordinator.submit(threading.get_ident) == here
        await after.wait()
        return inside, await coordinator.submit(threading.get_ident) == here

    with inline():
        running = asyncio.create_task(task())
        await asyncio.sleep(0)
    assert await coordinator.submit(threading.get_ident) != here
    after.set()
    assert await running == (True, False)


def test_other_threads_do_not(coordinator: Coordinator) -> None:
    found: list[int] = []

    def elsewhere() -> None:
        found.append(threading.get_ident())
        found.append(coordinator.submit(threading.get_ident).result(20))

    with inline():
        context = contextvars.Context()
        thread = threading.Thread(target=context.run, args=(elsewhere,))
        thread.start()
        thread.join(20)
        assert coordinator.submit(threading.get_ident).result() == threading.get_ident()
    assert len(set(found)) == 2
    assert threading.get_ident() not in found


async def test_a_thread_that_copies_the_context_runs_its_calls_itself(
    coordinator: Coordinator,
) -> None:
    def elsewhere() -> bool:
        return coordinator.submit(threading.get_ident).result() == threading.get_ident()

    with inline():
        assert await asyncio.to_thread(elsewhere)


def test_it_nests_and_ends(coordinator: Coordinator) -> None:
    here = threading.get_ident()
    block = inline()
    with block:
        with block, inline():
            assert coordinator.submit(threading.get_ident).result() == here
        assert coordinator.submit(threading.get_ident).result() == here
    assert coordinator.submit(threading.get_ident).result(20) != here


def test_left_in_another_context_it_is_over_as_well(coordinator: Coordinator) -> None:
    def block() -> Iterator[None]:
        with inline():
            yield

    steps = block()
    next(steps)
    contextvars.copy_context().run(next, steps, None)
    assert coordinator.submit(threading.get_ident).result(20) != threading.get_ident()


def test_the_default_coordinator_too(note: GuardedFunction[[Any], Any]) -> None:
    before = get_coordinator().stats().totals.completed
    with inline():
        finished(note(1))
    assert get_coordinator().stats().totals.completed == before + 1
