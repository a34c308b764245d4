"""`install`: `to_thread` and `run_in_executor(None, ...)` of a loop become tokens, and back."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, Executor, install

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0
Run = Callable[[Any], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """`asyncio.run`, on each kind of loop."""
    factory: Any = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop", reason="uvloop is not here").new_event_loop

    def run_on(main: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)

    return run_on


def on_worker() -> bool:
    """Whether this runs as a token."""
    return tokengate.current_token() is not None


async def as_tokens() -> bool:
    loop = asyncio.get_running_loop()
    found = {await asyncio.to_thread(on_worker), await loop.run_in_executor(None, on_worker)}
    assert len(found) == 1
    return found.pop()


def test_from_then_on(coordinator: Coordinator, run: Run) -> None:
    async def main() -> None:
        assert not await as_tokens()
        installation = install()
        assert await as_tokens()
        assert isinstance(installation.executor, Executor)
        assert "Executor on" in repr(installation)
        installation.uninstall()
        assert not await as_tokens()
        installation.uninstall()  # again: nothing
        assert "undone" in repr(installation)
        assert not await as_tokens()

    run(main())
    assert coordinator.stats().totals.completed == 2


def test_with(coordinator: Coordinator, run: Run) -> None:
    async def main() -> None:
        with install() as installation:
            assert await as_tokens()
            with pytest.raises(LookupError), installation:
                raise LookupError
            assert not await as_tokens()

    run(main())


def test_before_the_loop_runs(coordinator: Coordinator) -> None:
    with asyncio.Runner() as runner:
        install(runner.get_loop())
        assert runner.run(as_tokens())


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_undone_in_any_order(coordinator: Coordinator, order: tuple[int, ...]) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        own = ThreadPoolExecutor(1)
        loop.set_default_executor(own)
        made = [install() for _ in range(3)]
        for n in order:
            assert await as_tokens()
            made[n].uninstall()
        assert loop._default_executor is own
        assert not await as_tokens()

    asyncio.run(main())


def test_what_the_user_sets_stays(coordinator: Coordinator, run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        installation = install()
        own = ThreadPoolExecutor(1, thread_name_prefix="own")
        loop.set_default_executor(own)
        assert not await as_tokens()
        installation.uninstall()
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        if hasattr(loop, "_default_executor"):  # uvloop does not say what it has
            assert name.startswith("own")
        own.shutdown()

    run(main())


def test_one_loop_after_the_other(coordinator: Coordinator, run: Run) -> None:
    async def main() -> bool:
        install()
        return await as_tokens()

    assert run(main())
    assert not run(as_tokens())
    assert run(main())


def test_after_the_loop_was_closed(coordinator: Coordinator, run: Run) -> None:
    async def main() -> Any:
        return install()

    installation = run(main())
    installation.uninstall()
    assert "undone" in repr(installation)


def test_with_calls_under_way(coordinator: Coordinator, gate: Gate, run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with install():
            future = loop.run_in_executor(None, gate, "ran")
            await gate.entered()
        gate.open()
        assert await future == "ran"

    run(main())


@pytest.mark.parametrize("wrong", [5, "loop", object()])
def test_no_loop(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected an asyncio event loop or None"):
        install(wrong)


def test_where_no_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="found no running event loop"):
        install()


def test_on_a_closed_loop() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="is closed"):
        install(loop)


def test_on_a_loop_that_runs_elsewhere(coordinator: Coordinator) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        running = threading.Event()
        loop.call_soon_threadsafe(running.set)
        assert running.wait(TIMEOUT)
        with pytest.raises(RuntimeError, match="runs on another thread"):
            install(loop)

        async def main() -> Any:
            return install()

        installation = asyncio.run_coroutine_threadsafe(main(), loop).result(TIMEOUT)
        with pytest.raises(RuntimeError, match="uninstall.*runs on another thread"):
            installation.uninstall()
        assert asyncio.run_coroutine_threadsafe(as_tokens(), loop).result(TIMEOUT)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        installation.uninstall()  # no longer running
        loop.close()


def test_the_current_coordinator(new_coordinator: NewCoordinator) -> None:
    own = new_coordinator(thread_workers=1)

    async def main() -> None:
        with tokengate.use(own):
            install()
        await asyncio.to_thread(int)

    asyncio.run(main())
    assert own.stats().totals.completed == 1


def test_context_of_to_thread(coordinator: Coordinator, run: Run) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    def change(n: int, /, *, by: int) -> tuple[int, int]:
        seen = variable.get()
        variable.set(n + by)
        return seen, variable.get()

    async def main() -> None:
        install()
        variable.set(1)
        assert await asyncio.to_thread(change, 5, by=2) == (1, 7)
        assert variable.get() == 1
        assert await asyncio.to_thread(change, 5, by=2) == (1, 7)

    run(main())


def test_many_at_once(coordinator: Coordinator, run: Run) -> None:
    async def main() -> None:
        install()
        loop = asyncio.get_running_loop()
        assert await asyncio.gather(*[asyncio.to_thread(pow, n, 2) for n in range(500)]) == [
            n * n for n in range(500)
        ]
        calls = [loop.run_in_executor(None, divmod, n, n % 2) for n in range(500)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(type(each) is ZeroDivisionError for each in ended) == 250

    run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_names(coordinator: Coordinator, debug: bool) -> None:
    """Operations are the functions; name look-ups are a kind of their own, with places of it."""

    async def main() -> None:
        install()
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(on_worker)
        await loop.run_in_executor(None, contextvars.copy_context().run, on_worker)
        await loop.getaddrinfo("127.0.0.1", 80)
        await loop.getnameinfo(("127.0.0.1", 80))

    asyncio.run(main(), debug=debug)
    operations = coordinator.stats().operations
    assert {name: each.completed for name, each in operations.items()} == {
        f"{__name__}.on_worker": 2,
        "socket.getaddrinfo": 1,
        "socket.getnameinfo": 1,
    }
    for name in ("socket.getaddrinfo", "socket.getnameinfo"):
        policy = coordinator._policy(name).as_dict()
        assert (policy["limit"], policy["priority"]) == (16, 100)


def test_without_anyio(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyio", None)

    async def main() -> None:
        with pytest.raises(ImportError):
            install(anyio=True)
        assert not await as_tokens()

    asyncio.run(main())


async def test_the_executor_of_another_loop(coordinator: Coordinator) -> None:
    """Asked for that loop's sake on a thread whose own loop runs it gives no future of this one."""
    other = asyncio.new_event_loop()
    try:
        with install(other):
            future = other.run_in_executor(None, pow, 2, 3)
            thread = threading.Thread(target=other.run_until_complete, args=(future,))
            thread.start()
            thread.join(TIMEOUT)
            assert future.result() == 8
    finally:
        other.close()


async def test_a_pending_result_is_not_waited_for_on_the_loop(
    coordinator: Coordinator, gate: Gate
) -> None:
    """As with the future that asyncio would have given."""
    with install():
        future = asyncio.get_running_loop().run_in_executor(None, gate)
        for ask in (future.result, future.exception):
            with pytest.raises(asyncio.InvalidStateError):
                ask()
        gate.open()
        await future
        assert future.exception() is None
