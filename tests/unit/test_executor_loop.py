"""On a loop's thread: default executor, and what functions raise, side by side with the stdlib."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Executor

if TYPE_CHECKING:
    from tests.conftest import Gate, Until

TIMEOUT = 20.0
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed here")
    return uvloop.new_event_loop  # type: ignore[no-any-return]


@pytest.fixture(params=["standard library", "tokengate"])
def executor(request: pytest.FixtureRequest, coordinator: Coordinator) -> Iterator[Any]:
    """The thread pool of the standard library, and in a second run of the same test ours."""
    with ThreadPoolExecutor(2) if request.param == "standard library" else Executor(2) as made:
        yield made


@pytest.fixture
def ours(coordinator: Coordinator) -> Executor:
    return Executor()


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a"), ValueError),
        (TimeoutError("b"), TimeoutError),
        (asyncio.CancelledError("c"), asyncio.CancelledError),
        (concurrent.futures.CancelledError("d"), asyncio.CancelledError),
        (concurrent.futures.InvalidStateError("e"), asyncio.InvalidStateError),
        (GeneratorExit("f"), GeneratorExit),
        (StopAsyncIteration("g"), StopAsyncIteration),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, BaseException) else "",
)
async def test_what_it_raises_on_a_loop(
    executor: Any, error: BaseException, expected: type[BaseException]
) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(expected) as told:
        await loop.run_in_executor(executor, raises, error)
    assert type(told.value) is expected
    assert told.value.args == error.args


async def test_a_stop_iteration(executor: Any) -> None:
    loop = asyncio.get_running_loop()
    if type(executor) is ThreadPoolExecutor:
        probe = loop.create_future()
        try:
            probe.set_exception(StopIteration())
        except TypeError:  # 3.11, and the first releases of 3.12
            pytest.skip("here the standard library never ends the future")
        probe.exception()
    with pytest.raises(RuntimeError, match="StopIteration interacts badly") as told:
        await loop.run_in_executor(executor, raises, StopIteration(3))
    assert isinstance(told.value.__cause__, StopIteration)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("now")], ids=["exit", "ctrl-c"])
def test_what_ends_a_loop(executor: Any, error: BaseException) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(executor, raises, error)

    with pytest.raises(type(error)) as told:
        asyncio.run(main())
    assert told.value.args == error.args


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt("now"),
        StopIteration(1),
        asyncio.CancelledError("c"),
        concurrent.futures.CancelledError("d"),
        GeneratorExit("f"),
    ],
    ids=lambda value: value.__class__.__name__,
)
def test_what_it_raises_off_a_loop(executor: Any, error: BaseException) -> None:
    future = executor.submit(raises, error)
    assert future.exception(TIMEOUT) is error
    with pytest.raises(type(error)) as told:
        future.result(TIMEOUT)
    assert told.value is error


def test_as_default_executor(coordinator: Coordinator, loop_factory: LoopFactory) -> None:
    """asyncio.run shuts it down in the end, and waits for its functions."""
    left: list[int] = []

    async def main() -> Executor:
        loop = asyncio.get_running_loop()
        executor = Executor(2)
        loop.set_default_executor(executor)
        assert await loop.run_in_executor(None, pow, 2, 5) == 32
        assert await asyncio.gather(*[asyncio.to_thread(pow, n, 2) for n in range(50)]) == [
            n * n for n in range(50)
        ]
        for n in range(20):
            loop.run_in_executor(None, left.append, n)
        return executor

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        executor = runner.run(main())
    assert sorted(left) == list(range(20))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)


async def test_a_loops_future_is_asyncios_too(ours: Executor, gate: Gate) -> None:
    future = ours.submit(gate, 5)
    assert asyncio.isfuture(future)
    assert asyncio.wrap_future(future) is future  # type: ignore[comparison-overlap]
    assert isinstance(future, concurrent.futures.Future)
    called = asyncio.Event()
    future.add_done_callback(lambda _: called.set())
    gate.open()
    assert await asyncio.wait_for(future, TIMEOUT) == 5  # type: ignore[arg-type]
    await asyncio.wait_for(called.wait(), TIMEOUT)
    assert future.result() == 5


async def test_result_blocks_there(ours: Executor) -> None:
    assert ours.submit(pow, 2, 3).result(TIMEOUT) == 8


async def test_cancelling_what_runs(
    ours: Executor, gate: Gate, coordinator: Coordinator, until: Until
) -> None:
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(ours, gate)
    await gate.entered()
    task = asyncio.ensure_future(asyncio.wait_for(future, None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()
    assert coordinator.stats().totals.abandoned_now == 1
    gate.open()
    await until(lambda: coordinator.stats().totals.abandoned_now == 0)


async def test_exceptions_never_retrieved(ours: Executor, until: Until) -> None:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    loop.run_in_executor(ours, raises, LookupError("nobody asks"))
    await until(lambda: told or gc.collect() < 0)  # without the GIL a future may go late
    assert "never retrieved" in told[0]["message"]
    assert isinstance(told[0]["exception"], LookupError)


def test_a_plain_future_keeps_its_errors_to_itself(coordinator: Coordinator) -> None:
    executor = Executor()
    executor.submit(raises, LookupError("nobody asks"))
    executor.shutdown()  # the fixture fails the test for what is logged


async def test_context(ours: Executor) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    loop = asyncio.get_running_loop()
    variable.set("caller")

    def change() -> str:
        seen = variable.get()
        variable.set("function")
        return seen

    assert await loop.run_in_executor(ours, change) == "caller"
    own = contextvars.copy_context()
    assert await loop.run_in_executor(ours, own.run, change) == "caller"
    assert variable.get() == "caller"
    assert own[variable] == "function"  # its own context object, not a copy
