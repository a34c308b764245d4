"""What a function may raise or return, and that neither loop nor worker dies of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tokengate import (
    Coordinator,
    FunctionExited,
    Token,
    TokenGateError,
    TokenState,
    gather,
    task_token_guard,
)

if TYPE_CHECKING:
    from tests.conftest import Gate


def raiser(error: BaseException | type[BaseException]) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


async def alive(coordinator: Coordinator, workers: int = 4) -> None:
    """The loop turns, and all workers are there: that many functions meet."""
    meeting = threading.Barrier(workers)
    await asyncio.gather(*[coordinator.submit(meeting.wait, 20) for _ in range(workers)])


def collected(gone: threading.Semaphore) -> bool:
    """Wait for what a destructor does. Without a GIL the collector has to help: what a thread made and others
    dropped is freed when that thread next runs, and a parked worker does not."""
    for _ in range(1000):
        if gone.acquire(timeout=0.02):
            return True
        gc.collect()
    return False


# -- ordinary exceptions ---------------------------------------------------------------------------


def deep(depth: int) -> NoReturn:
    if depth == 0:
        raise LookupError("from the depth")
    deep(depth - 1)


async def test_an_exception_arrives_with_the_functions_own_frames(
    coordinator: Coordinator,
) -> None:
    token = coordinator.submit(deep, 3)
    with pytest.raises(LookupError, match="from the depth") as caught:
        await token
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names.count("deep") == 4
    assert names[-4:] == ["deep"] * 4
    assert token.state is TokenState.FAILED


def test_off_the_loop_as_well(coordinator: Coordinator) -> None:
    token = coordinator.submit(deep, 3)
    with pytest.raises(LookupError) as caught:
        token.result(20)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-4:] == ["deep"] * 4
    error = token.exception()
    assert error is caught.value
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names.count("deep") == 4


async def test_cause_context_and_notes_survive(coordinator: Coordinator) -> None:
    def fail() -> NoReturn:
        try:
            raise KeyError("first")
        except KeyError as first:
            error = ValueError("second")
            error.add_note("a note")
            raise error from first

    with pytest.raises(ValueError, match="second") as caught:
        await coordinator.submit(fail)
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value.__context__, KeyError)
    assert caught.value.__notes__ == ["a note"]


async def test_the_same_exception_object_from_many_tokens(coordinator: Coordinator) -> None:
    error = LookupError("shared")
    tokens = [coordinator.submit(raiser(error)) for _ in range(50)]
    assert await asyncio.gather(*tokens, return_exceptions=True) == [error] * 50


async def test_a_function_of_the_wrong_arguments(coordinator: Coordinator) -> None:
    def takes_one(x: int) -> int:
        return x

    for args, kwargs in (((), {}), ((1, 2), {}), ((1,), {"x": 1}), ((1,), {"y": 1})):
        with pytest.raises(TypeError, match="takes_one"):
            await coordinator.submit(takes_one, *args, **kwargs)


async def test_an_exception_group_passes(coordinator: Coordinator) -> None:
    group = ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    with pytest.raises(ExceptionGroup) as caught:
        await coordinator.submit(raiser(group))
    assert caught.value is group


async def test_a_timeout_error_of_the_functions_own_is_no_timeout_of_the_waiting(
    coordinator: Coordinator,
) -> None:
    token = coordinator.submit(raiser(TimeoutError("of its own")))
    with pytest.raises(TimeoutError, match="of its own"):
        await asyncio.wait_for(token, 20)
    assert token.state is TokenState.FAILED


async def test_memory_error(coordinator: Coordinator) -> None:
    with pytest.raises(MemoryError):
        await coordinator.submit(raiser(MemoryError))
    with pytest.raises(MemoryError):
        await coordinator.submit(bytearray, sys.maxsize)
    await alive(coordinator)


async def test_recursion_error(coordinator: Coordinator) -> None:
    def endless(depth: int = 0) -> int:
        return endless(depth + 1) + 1

    for _ in range(5):
        with pytest.raises(RecursionError):
            await coordinator.submit(endless)
    await alive(coordinator)


def test_endless_nesting_of_tokens_ends_in_a_recursion_error(single: Coordinator) -> None:
    def endless() -> Any:
        return single.submit(endless).result()

    with pytest.raises((RecursionError, FunctionExited)):
        single.submit(endless).result(60)
    assert single.submit(int, "5").result(20) == 5


async def test_a_thousand_failures_leave_the_workers_alive(coordinator: Coordinator) -> None:
    tokens = [coordinator.submit(raiser(LookupError(i))) for i in range(1000)]
    outcomes = await asyncio.gather(*tokens, return_exceptions=True)
    assert [error.args for error in outcomes if isinstance(error, LookupError)] == [
        (i,) for i in range(1000)
    ]
    await alive(coordinator)
    assert coordinator.stats().lanes["thread"].workers <= 4


# -- what would act on the loop --------------------------------------------------------------------

FATAL = [
    SystemExit(3),
    SystemExit(),
    KeyboardInterrupt("typed by nobody"),
    GeneratorExit("closed by nobody"),
    StopIteration("value"),
    StopAsyncIteration("value"),
    asyncio.CancelledError("cancelled by nobody"),
]


class QuietExit(SystemExit):
    """A subclass is no better."""


@pytest.mark.parametrize("error", [*FATAL, QuietExit(1)], ids=lambda error: repr(error))
def test_awaited_without_any_except_the_loop_lives(
    coordinator: Coordinator, error: BaseException
) -> None:
    # As a user would see it: a task that dies of it, and a loop that goes on.
    reports: list[dict[str, Any]] = []

    async def victim() -> None:
        await coordinator.submit(raiser(error))

    async def main() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _, c: reports.append(c))
        task = asyncio.create_task(victim())
        await asyncio.wait([task])
        assert not task.cancelled()
        caught = task.exception()
        assert isinstance(caught, FunctionExited)
        assert caught.__cause__ is error
        assert type(error).__name__ in str(caught)
        await alive(coordinator)
        return "the loop lives"

    assert asyncio.run(main()) == "the loop lives"
    assert reports == []


@pytest.mark.parametrize("error", FATAL, ids=lambda error: repr(error))
def test_nobody_awaits_it_and_it_is_reported_like_any_other(
    coordinator: Coordinator, error: BaseException
) -> None:
    reports: list[dict[str, Any]] = []
    reported = threading.Semaphore(0)

    async def main() -> None:
        def note(_: Any, context: dict[str, Any]) -> None:
            reports.append(context)
            reported.release()

        asyncio.get_running_loop().set_exception_handler(note)
        coordinator.submit(raiser(error))
        await coordinator.drain()
        assert await asyncio.to_thread(collected, reported)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [type(report["exception"]) for report in reports] == [FunctionExited]


@pytest.mark.parametrize("error", FATAL, ids=lambda error: repr(error))
def test_off_the_loop_it_does_not_end_the_thread(
    coordinator: Coordinator, error: BaseException
) -> None:
    token = coordinator.submit(raiser(error))
    with pytest.raises(FunctionExited) as caught:
        token.result(20)
    assert caught.value.__cause__ is error
    assert isinstance(caught.value, TokenGateError)
    assert token.state is TokenState.FAILED
    assert not token.cancelled()


async def test_in_bulk_too(coordinator: Coordinator) -> None:
    @task_token_guard
    def fail(number: int) -> NoReturn:
        raise FATAL[number]

    for outcomes in (
        await gather(*map(fail, range(len(FATAL))), return_exceptions=True),
        await fail.map(range(len(FATAL)), return_exceptions=True),
        await asyncio.gather(*map(fail, range(len(FATAL))), return_exceptions=True),
    ):
        assert [type(outcome) for outcome in outcomes] == [FunctionExited] * len(FATAL)
    with pytest.raises(FunctionExited):
        await fail.map([3])
    await alive(coordinator)


async def test_a_stop_async_iteration_does_not_end_an_iteration(coordinator: Coordinator) -> None:
    @task_token_guard
    def fail(_: int) -> int:
        raise StopAsyncIteration

    got = []
    with pytest.raises(FunctionExited):
        got = [value async for value in fail.map([1, 2, 3])]
    assert got == []


def test_a_stop_iteration_does_not_end_an_iteration_off_the_loop(
    coordinator: Coordinator,
) -> None:
    @task_token_guard
    def fail(_: int) -> NoReturn:
        raise StopIteration

    with pytest.raises(FunctionExited):
        list(fail.map([1, 2, 3]))


async def test_its_traceback_leads_to_the_function(coordinator: Coordinator) -> None:
    def leave() -> NoReturn:
        sys.exit(3)

    with pytest.raises(FunctionExited) as caught:
        await coordinator.submit(leave)
    cause = caught.value.__cause__
    assert isinstance(cause, SystemExit)
    assert cause.code == 3
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "leave"
    assert "leave" in str(caught.value)


async def test_the_cancelled_error_of_threads_is_an_ordinary_exception(
    coordinator: Coordinator,
) -> None:
    with pytest.raises(concurrent.futures.CancelledError):
        await coordinator.submit(raiser(concurrent.futures.CancelledError("of its own")))


async def test_other_base_exceptions_arrive_as_they_are(coordinator: Coordinator) -> None:
    class Own(BaseException):
        pass

    with pytest.raises(Own):
        await coordinator.submit(raiser(Own))
    await alive(coordinator)


async def test_a_base_exception_group_that_holds_one_does_no_harm(
    coordinator: Coordinator,
) -> None:
    group = BaseExceptionGroup("several", [SystemExit(3), asyncio.CancelledError()])
    with pytest.raises((BaseExceptionGroup, FunctionExited)):
        await coordinator.submit(raiser(group))
    await alive(coordinator)


# -- exceptions that misbehave themselves ----------------------------------------------------------


class Unprintable(SystemExit):
    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


async def test_an_exit_that_cannot_be_printed(coordinator: Coordinator) -> None:
    error = Unprintable(3)
    with pytest.raises(FunctionExited) as caught:
        await asyncio.wait_for(coordinator.submit(raiser(error)), 20)
    assert caught.value.__cause__ is error
    await alive(coordinator)


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


async def test_an_exception_that_cannot_be_printed(coordinator: Coordinator) -> None:
    with pytest.raises(UnprintableError):
        await asyncio.wait_for(coordinator.submit(raiser(UnprintableError())), 20)
    await alive(coordinator)


async def test_an_exception_whose_class_lies_about_itself(coordinator: Coordinator) -> None:
    class Liar(Exception):
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise ValueError("who am I")

    with pytest.raises((Liar, ValueError, TokenGateError)):
        await asyncio.wait_for(coordinator.submit(raiser(Liar())), 20)
    await alive(coordinator)


async def test_an_exception_that_keeps_no_traceback(coordinator: Coordinator) -> None:
    class Slippery(Exception):
        def with_traceback(self, tb: Any) -> Any:
            raise ValueError("no traceback for me")

    with pytest.raises((Slippery, ValueError)):
        await asyncio.wait_for(coordinator.submit(raiser(Slippery())), 20)
    await alive(coordinator)


# -- destructors that raise ------------------------------------------------------------------------


class Grudge:
    """Raises when it goes."""

    def __init__(self, gone: threading.Semaphore) -> None:
        self.gone = gone

    def __del__(self) -> None:
        self.gone.release()
        raise LookupError("not without a fight")


async def test_a_result_whose_destructor_raises(
    coordinator: Coordinator, unraisable: list[Any]
) -> None:
    gone = threading.Semaphore(0)
    token = coordinator.submit(Grudge, gone)
    assert isinstance(await token, Grudge)
    del token
    assert await asyncio.to_thread(collected, gone)
    await alive(coordinator)
    assert [kind for kind, _ in unraisable] == [LookupError]
    unraisable.clear()


async def test_a_dropped_late_result_whose_destructor_raises(
    coordinator: Coordinator, unraisable: list[Any]
) -> None:
    gone = threading.Semaphore(0)
    executing, go_on = threading.Event(), threading.Event()

    def make() -> Grudge:
        executing.set()
        assert go_on.wait(20)
        return Grudge(gone)

    token = coordinator.submit(make)
    assert executing.wait(20)
    token.cancel()
    go_on.set()
    assert await asyncio.to_thread(collected, gone)
    await alive(coordinator)
    await coordinator.aclose()
    assert coordinator.stats().totals.abandoned_now == 0
    assert [kind for kind, _ in unraisable] == [LookupError]
    unraisable.clear()


async def test_an_argument_whose_destructor_raises(
    coordinator: Coordinator, unraisable: list[Any]
) -> None:
    gone = threading.Semaphore(0)
    assert await coordinator.submit(lambda _: "done", Grudge(gone)) == "done"
    assert await asyncio.to_thread(collected, gone)
    await alive(coordinator)
    assert [kind for kind, _ in unraisable] == [LookupError]
    unraisable.clear()


async def test_an_argument_whose_destructor_raises_when_its_token_is_cancelled(
    single: Coordinator, unraisable: list[Any]
) -> None:
    hold, gone = threading.Event(), threading.Semaphore(0)
    held = single.submit(hold.wait, 20)
    tokens = [single.submit(id, Grudge(gone)) for _ in range(5)]
    for token in tokens:
        assert token.cancel()
    for _ in range(5):
        assert await asyncio.to_thread(collected, gone)
    hold.set()
    await held
    assert [kind for kind, _ in unraisable] == [LookupError] * 5
    unraisable.clear()


async def test_a_destructor_that_calls_a_guarded_function(coordinator: Coordinator) -> None:
    calls: list[int] = []
    called = threading.Semaphore(0)

    class Last:
        def __del__(self) -> None:
            coordinator.submit(calls.append, 1)
            called.release()

    await coordinator.submit(lambda _: None, Last())
    await coordinator.submit(Last)
    for _ in range(2):
        assert await asyncio.to_thread(collected, called)
    await coordinator.drain()
    assert calls == [1, 1]


async def test_a_destructor_that_waits_for_a_token(single: Coordinator, gate: Gate) -> None:
    # Both run on the worker: one inside a function, one after it, when a late result is dropped.
    results: list[int] = []
    gone = threading.Semaphore(0)

    class Last:
        def __del__(self) -> None:
            results.append(single.submit(int, "5").result(20))
            gone.release()

    def make_and_drop() -> None:
        Last()

    def make() -> Last:
        gate()
        return Last()

    await single.submit(make_and_drop)
    late = single.submit(make)
    await gate.entered()
    late.cancel()
    gate.open()
    for _ in range(2):
        assert await asyncio.to_thread(gone.acquire, True, 20)
    assert results == [5, 5]
    await single.aclose()
    assert single.stats().totals.abandoned_now == 0


async def test_a_callback_that_frees_the_last_reference_to_its_token(
    coordinator: Coordinator,
) -> None:
    tokens = {i: coordinator.submit(abs, i) for i in range(200)}
    left = asyncio.Event()

    def forget(token: Token[int]) -> None:
        del tokens[token.result()]
        if not tokens:
            left.set()

    for number in list(tokens):
        tokens[number].add_done_callback(forget)
    await asyncio.wait_for(left.wait(), 20)


async def test_a_function_that_spoils_its_context(coordinator: Coordinator) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("spoiled", default=0)
    await asyncio.gather(*[coordinator.submit(var.set, i) for i in range(1, 50)])
    assert set(await asyncio.gather(*[coordinator.submit(var.get) for _ in range(50)])) == {0}
