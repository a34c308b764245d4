"""What users may write, and the types they get. Read by type checkers, never run."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import as_completed as futures_as_completed
from typing import Any, TypeVar, assert_type

import tokengate
from tokengate import (
    Coordinator,
    Executor,
    GuardedFunction,
    Installation,
    Stats,
    Token,
    TokenGroup,
    TokenState,
    as_completed,
    configure_default,
    current_token,
    gather,
    get_coordinator,
    install,
    task_token_guard,
    use,
)
from tokengate.lanes.base import Lane
from tokengate.lanes.threads import ThreadLane


@task_token_guard
def bare(number: int, *, loud: bool = False) -> str:
    return f"{number}{loud}"


@task_token_guard()
def no_arguments() -> bytes:
    return b""


@task_token_guard("named", {"weight": "light"})
def positional(*parts: str, **more: int) -> list[str]:
    return [*parts, *more]


@task_token_guard(operation_type="full", tags={"weight": "heavy", "team": 7}, lane="thread")
def full(number: int = 0) -> float:
    return number / 2


guarded_builtin = task_token_guard(os.path.getsize)
guarded_lambda: GuardedFunction[[int], int] = task_token_guard(lambda number: number + 1)


T = TypeVar("T")


@task_token_guard
def first(items: Sequence[T], default: T | None = None) -> T:
    return items[0]


async def generics(words: Sequence[str]) -> None:
    assert_type(first([1]), Token[int])
    assert_type(await first(words), str)
    assert_type(await first.options(timeout=1.0)([b""]), bytes)
    assert_type(await gather(first([1]), first(["a"])), tuple[int, str])


class Service:
    @task_token_guard
    def method(self, number: int) -> str:
        return f"{self}{number}"

    @task_token_guard(operation_type="service")
    def with_arguments(self, number: int) -> str:
        return f"{self}{number}"

    @task_token_guard
    @classmethod
    def class_method(cls, number: int) -> str:
        return f"{cls}{number}"

    @classmethod
    @task_token_guard(tags={"weight": "light"})
    def class_method_inside(cls, number: int) -> str:
        return f"{cls}{number}"

    @task_token_guard
    @staticmethod
    def static_method(number: int) -> str:
        return str(number)

    @staticmethod
    @task_token_guard
    def static_method_inside(number: int) -> str:
        return str(number)

    @task_token_guard
    @staticmethod
    def static_method_of_a_class(kind: type[int]) -> str:
        return kind.__name__

    @task_token_guard
    @staticmethod
    def static_method_of_nothing() -> str:
        return ""


class Special(Service):
    pass


def calls() -> None:
    assert_type(bare(1), Token[str])
    assert_type(bare(number=1, loud=True), Token[str])
    assert_type(no_arguments(), Token[bytes])
    assert_type(positional("a", "b", c=1), Token[list[str]])
    assert_type(full(), Token[float])
    assert_type(guarded_builtin("file"), Token[int])
    assert_type(guarded_lambda(1), Token[int])
    assert_type(bare.__wrapped__(1), str)
    assert_type(bare.operation, str)
    assert_type(bare.__name__, str)
    assert_type(bare.__signature__, inspect.Signature)


def methods(service: Service, special: Special) -> None:
    assert_type(service.method(1), Token[str])
    assert_type(service.with_arguments(number=1), Token[str])
    assert_type(Service.method(service, 1), Token[str])
    assert_type(special.method(1), Token[str])

    assert_type(Service.class_method(1), Token[str])
    assert_type(Special.class_method(number=1), Token[str])
    assert_type(service.class_method(1), Token[str])
    assert_type(Service.class_method_inside(1), Token[str])
    assert_type(service.class_method_inside(number=1), Token[str])

    assert_type(Service.static_method(1), Token[str])
    assert_type(service.static_method(number=1), Token[str])
    assert_type(Service.static_method_inside(1), Token[str])
    assert_type(service.static_method_inside(1), Token[str])
    assert_type(Service.static_method_of_a_class(bool), Token[str])
    assert_type(service.static_method_of_a_class(kind=bool), Token[str])
    assert_type(service.static_method_of_nothing(), Token[str])

    assert_type(service.method.options(tags={})(1), Token[str])
    assert_type(service.method.operation, str)


def options(coordinator: Coordinator) -> None:
    changed = bare.options(tags={"who": "me"}, coordinator=coordinator, lane="thread")
    assert_type(changed(1, loud=True), Token[str])
    assert_type(changed.options()(number=1), Token[str])


async def awaited(token: Token[int]) -> None:
    assert_type(await bare(1), str)
    assert_type(await no_arguments(), bytes)
    assert_type(await Service().method(1), str)
    assert_type(await token, int)
    assert_type(await token, int)


async def mapped(service: Service, numbers: AsyncIterator[int]) -> None:
    assert_type(await bare.map(range(3)), list[str])
    assert_type(await bare.map(numbers, in_flight=2, ordered=False, loud=True), list[str])
    assert_type(await bare.map([1], return_exceptions=True), list[str | BaseException])
    assert_type(await bare.map([1], tokens=True), list[Token[str]])
    assert_type(await bare.map([1], tokens=True, return_exceptions=True), list[Token[str]])
    assert_type(await service.method.map([1]), list[str])
    assert_type(await Service.class_method.map([1]), list[str])
    assert_type(await positional.starmap([("a", "b")], c=1), list[list[str]])
    assert_type(
        await positional.starmap([("a",)], return_exceptions=True), list[list[str] | BaseException]
    )
    assert_type(await positional.starmap([("a",)], tokens=True), list[Token[list[str]]])

    async for result in bare.map([1]):
        assert_type(result, str)
    async for outcome in bare.map([1], return_exceptions=True):
        assert_type(outcome, str | BaseException)
    async with bare.map([1], tokens=True, ordered=False) as tokens:
        async for token in tokens:
            assert_type(token, Token[str])
            assert_type(token.index, int | None)
            assert_type(token.args, tuple[Any, ...] | None)
    # maps chain
    assert_type(await guarded_lambda.map(guarded_lambda.map(range(3))), list[int])
    await bare.map([1]).aclose()


def mapped_off_the_loop() -> None:
    for result in bare.map([1]):
        assert_type(result, str)
    for outcome in bare.map([1], return_exceptions=True):
        assert_type(outcome, str | BaseException)
    for token in positional.starmap([("a",)], tokens=True):
        assert_type(token, Token[list[str]])
    assert_type(list(bare.map([1])), list[str])
    assert_type(len(bare.map([1])), int)


async def gathered(a: Token[int], b: Token[str], c: Token[bytes], many: list[Token[int]]) -> None:
    assert_type(await gather(*many), list[int])
    assert_type(await gather(*many, return_exceptions=True), list[int | BaseException])
    assert_type(await gather(a), list[int])
    assert_type(await gather(a, b), tuple[int, str])
    assert_type(await gather(a, b, c), tuple[int, str, bytes])
    assert_type(await gather(a, b, c, a), tuple[int, str, bytes, int])
    assert_type(await gather(a, b, c, a, b), tuple[int, str, bytes, int, str])
    assert_type(
        await gather(a, b, return_exceptions=True), tuple[int | BaseException, str | BaseException]
    )
    assert_type(await gather(a, a, a, a, a, a), list[int])
    number, text = await gather(a, b)
    assert_type(number, int)
    assert_type(text, str)


def gathered_off_the_loop(a: Token[int], b: Token[str], many: list[Token[int]]) -> None:
    assert_type(gather(*many).result(), list[int])
    assert_type(gather(a, b).result(timeout=1), tuple[int, str])


async def completed(many: list[Token[int]]) -> None:
    async for token in as_completed(many):
        assert_type(token, Token[int])
        assert_type(token.result(), int)
    for token in as_completed(iter(many)):
        assert_type(token, Token[int])


async def asyncio_takes_tokens(a: Token[int], b: Token[str], many: list[Token[int]]) -> None:
    assert_type(await asyncio.gather(*many), list[int])
    assert_type(await asyncio.gather(*many, return_exceptions=True), list[int | BaseException])
    assert_type(await asyncio.gather(a, b), tuple[int, str])
    assert_type(
        await asyncio.gather(*[bare(i) for i in range(3)], return_exceptions=True),
        list[str | BaseException],
    )
    assert_type(await asyncio.wait_for(a, 1), int)
    assert_type(await asyncio.shield(a), int)
    assert_type(asyncio.isfuture(a), bool)
    for each in asyncio.as_completed(many):
        assert_type(await each, int)
    async with asyncio.timeout(1):
        await a


def takes_an_awaitable(awaitable: Awaitable[float]) -> None:
    assert awaitable


def takes_a_wider_one(token: Token[float]) -> None:
    assert token


def tokens(token: Token[int]) -> None:
    takes_an_awaitable(token)
    takes_a_wider_one(token)
    assert_type(token.state, TokenState)
    assert_type(token.state.ended, bool)
    assert_type(token.id, int)
    assert_type(token.operation_type, str)
    assert_type(token.tags["weight"], Any)
    assert_type(token.wait_time, float)
    assert_type(token.run_time, float)
    assert_type(token.abandoned, bool)
    assert_type(token.done(), bool)
    assert_type(token.cancelled(), bool)
    assert_type(token.cancel("why"), bool)
    assert_type(token.kill(), bool)
    assert_type(token.kill("why"), bool)
    assert_type(token.result(), int)
    assert_type(token.result(timeout=1), int)
    assert_type(token.exception(1.5), BaseException | None)
    assert_type(token.get_loop(), asyncio.AbstractEventLoop)

    def ended(which: Token[int]) -> None:
        assert_type(which.result(), int)

    token.add_done_callback(ended)
    token.add_done_callback(print)
    assert_type(token.remove_done_callback(ended), int)


def inside() -> None:
    assert_type(current_token(), Token[Any] | None)


async def coordinators(service: Service) -> None:
    coordinator = Coordinator(thread_workers=2, pin="none", stop_timeout=1, name="mine")
    assert_type(coordinator.start(), Coordinator)
    assert_type(coordinator.submit(os.path.getsize, "file"), Token[int])
    assert_type(coordinator.submit(bare.__wrapped__, 1, loud=True), Token[str])
    # a guarded function is submitted as what it guards
    assert_type(coordinator.submit(bare, 1, loud=True), Token[str])
    assert_type(coordinator.submit(service.method, number=1), Token[str])
    assert_type(await coordinator.submit(service.method, 1), str)
    await coordinator.drain()
    await coordinator.drain("operation")
    await coordinator.drain(bare)
    coordinator.resize("thread", 2)
    coordinator.stop(timeout=1, cancel_waiting=True)
    await coordinator.aclose()
    with Coordinator() as inner:
        assert_type(inner, Coordinator)
    async with Coordinator() as inner:
        assert_type(inner, Coordinator)
    with use(coordinator) as used:
        assert_type(used, Coordinator)
    assert_type(get_coordinator(), Coordinator)
    assert_type(configure_default(thread_workers=None, pin="auto"), Coordinator)


async def groups(service: Service, coordinator: Coordinator) -> int:
    async with TokenGroup() as group:
        assert_type(group, TokenGroup)
        assert_type(group.start(bare, 1, loud=True), Token[str])
        assert_type(group.start(bare.options(timeout=1), 1), Token[str])
        assert_type(group.start(service.method, number=1), Token[str])
        assert_type(group.start(os.path.getsize, "file"), Token[int])
        assert_type(await group.start(full), float)
    async with TokenGroup(abandon=True, coordinator=coordinator) as group:
        return len(await group.start(bare, 1))


def groups_off_the_loop(service: Service) -> int:
    with TokenGroup(abandon=False) as group:
        assert_type(group.start(service.method, 1).result(), str)
        return group.start(len, "x").result()


async def executors(coordinator: Coordinator, service: Service) -> None:
    with Executor(4, "mail", coordinator=coordinator, lane="thread") as executor:
        assert_type(executor, Executor)
        future = executor.submit(os.path.getsize, "file")
        assert_type(future.result(timeout=1), int)
        a_future: Future[int] = future
        assert_type(a_future.exception(), BaseException | None)
        assert_type(list(executor.map(str, [1, 2], timeout=1, chunksize=1)), list[str])
        assert_type(await asyncio.wrap_future(future), int)
        assert_type(await executor.submit(full), Token[float])
        executor.shutdown(wait=False, cancel_futures=True)
    asyncio.get_running_loop().set_default_executor(executor)
    pool: ThreadPoolExecutor = executor
    assert_type(next(futures_as_completed([pool.submit(service.method, 1)])).result(), Token[str])


async def installing(loop: asyncio.AbstractEventLoop) -> None:
    assert_type(install(), Installation)
    with install(loop, anyio=False) as installation:
        assert_type(installation, Installation)
        assert_type(installation.executor, Executor)
    assert_type(installation.uninstall(), None)


def statistics(stats: Stats) -> None:
    assert_type(stats.operations["bare"].executing, int)
    assert_type(stats.operations["bare"].wait.p99, float)
    assert_type(stats.lanes["thread"].cpu_seconds, float)
    assert_type(stats.loop_lag.p99, float)
    assert_type(stats.totals.completed, int)
    assert_type(stats.as_dict(), dict[str, Any])
    assert_type(tokengate.__version__, str)


def takes_a_callable(call: Callable[[int], Awaitable[str]]) -> None:
    call(1)


def where_callables_are_wanted(service: Service) -> None:
    takes_a_callable(bare)
    takes_a_callable(service.method)
    assert_type(list(map(bare, [1])), list[Token[str]])


def a_lane() -> Lane:
    lane: Lane = ThreadLane("prefix", pin=False)
    assert_type(lane.join(0.0), bool)
    return lane
