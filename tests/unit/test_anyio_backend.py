"""`anyio.to_thread.run_sync` on tokens: the same conduct as on anyio's own threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    CoordinatorStopped,
    FunctionExited,
    current_token,
    task_token_guard,
    use,
)
from tokengate.anyio_backend import patch_anyio
from tokengate.testing import inline

anyio: Any = pytest.importorskip("anyio", reason="anyio is not installed for this interpreter")
for part in ("from_thread", "lowlevel", "to_thread"):
    importlib.import_module(f"anyio.{part}")
inside: Any = importlib.import_module("anyio._backends._asyncio")

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20
METHODS = ("run_sync_in_worker_thread", "run_async_from_thread", "run_sync_from_thread")


def methods() -> list[Any]:
    return [vars(inside.AsyncIOBackend)[name] for name in METHODS]


ORIGINAL = methods()


def patient_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = TIMEOUT  # else a busy machine is worth a message in debug mode
    return loop


def loops() -> list[Any]:
    debug = {"debug": True, "loop_factory": patient_loop}
    found = [pytest.param({}, id="asyncio"), pytest.param(debug, id="debug")]
    try:
        import uvloop
    except ImportError:
        return found
    return [*found, pytest.param({"loop_factory": uvloop.new_event_loop}, id="uvloop")]


@pytest.fixture(params=loops())
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`run(main, *args)` on anyio's asyncio backend; of several loops, and in debug mode."""

    def call(main: Any, *args: Any) -> Any:
        return anyio.run(main, *args, backend="asyncio", backend_options=request.param)

    return call


@pytest.fixture
def patched(coordinator: Coordinator) -> Iterator[Coordinator]:
    undo = patch_anyio(coordinator)
    yield coordinator
    undo()
    assert methods() == ORIGINAL


@pytest.fixture
def single_patched(single: Coordinator) -> Iterator[Coordinator]:
    undo = patch_anyio(single)
    yield single
    undo()


def token_here() -> Any:
    return current_token()


# -- where calls run -------------------------------------------------------------------------------


def test_calls_are_tokens(run: Callable[..., Any], patched: Coordinator) -> None:
    async def main() -> None:
        token = await anyio.to_thread.run_sync(token_here)
        assert token.core is patched
        assert token.operation_type == f"{__name__}.token_here"
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(anyio.to_thread.run_sync, token_here)

    run(main)
    assert patched.stats().operations[f"{__name__}.token_here"].completed == 201


class Thing:
    def method(self, value: int) -> Any:
        return current_token()

    def __call__(self) -> Any:
        return current_token()


NAMES = [
    (functools.partial(functools.partial(Thing().method), 1), "Thing.method"),
    (functools.partial(contextvars.copy_context().run, token_here), "token_here"),
    (
        functools.partial(contextvars.copy_context().run, functools.partial(token_here)),
        "token_here",
    ),
    (Thing(), "Thing"),
]


@pytest.mark.parametrize(("function", "expected"), NAMES, ids=range(len(NAMES)))
def test_operations_are_named_after_the_function_in_the_end(
    patched: Coordinator, function: Any, expected: str
) -> None:
    token = anyio.run(anyio.to_thread.run_sync, function)
    assert token.operation_type == f"{__name__}.{expected}"


def test_the_function_of_a_context_given_apart(patched: Coordinator) -> None:
    token = anyio.run(anyio.to_thread.run_sync, contextvars.copy_context().run, token_here)
    assert token.operation_type == f"{__name__}.token_here"


def test_what_cannot_be_called_fails_there(run: Callable[..., Any], patched: Coordinator) -> None:
    with pytest.raises(TypeError, match="not callable"):
        run(anyio.to_thread.run_sync, 5)


def test_what_anyio_itself_sends_to_threads(patched: Coordinator, tmp_path: Any) -> None:
    async def main() -> str:
        path = anyio.Path(tmp_path / "file")
        await path.write_text("text")
        async with await anyio.open_file(path) as file:
            text: str = await file.read()
        return text

    assert anyio.run(main) == "text"
    assert patched.stats().totals.completed >= 3


def test_context_variables(run: Callable[..., Any], patched: Coordinator) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def look() -> str:
        before = variable.get()
        variable.set("inside")
        return before

    async def main() -> None:
        variable.set("outside")
        assert await anyio.to_thread.run_sync(look) == "outside"
        assert variable.get() == "outside"

    run(main)


def test_no_async_library_runs_in_a_worker(run: Callable[..., Any], patched: Coordinator) -> None:
    sniffio = pytest.importorskip("sniffio")

    async def main() -> None:
        assert await anyio.to_thread.run_sync(sniffio.current_async_library_cvar.get) is None
        assert sniffio.current_async_library() == "asyncio"

        async def inner() -> str:
            await anyio.lowlevel.checkpoint()
            library: str = sniffio.current_async_library()
            return library

        # so that a loop of its own can run there
        assert await anyio.to_thread.run_sync(anyio.run, inner) == "asyncio"

    run(main)


def test_each_call_gives_the_loop_a_turn(run: Callable[..., Any], patched: Coordinator) -> None:
    async def main() -> int:
        turns = 0
        done = False

        async def count() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            for _ in range(100):
                await anyio.to_thread.run_sync(int)
            done = True
        return turns

    assert run(main) >= 50


def test_calls_that_run_inline(run: Callable[..., Any], patched: Coordinator) -> None:
    def look() -> int:
        anyio.from_thread.check_cancelled()
        return threading.get_ident()

    async def main() -> int:
        turns = 0
        done = False

        async def count() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            with inline():
                for _ in range(100):
                    # it has ended when it comes, and still the loop gets its turn
                    assert await anyio.to_thread.run_sync(look) == threading.get_ident()
                with pytest.raises(RuntimeError, match="inline"):
                    await anyio.to_thread.run_sync(anyio.from_thread.run_sync, int)
                with pytest.raises(RuntimeError, match="inline"):
                    await anyio.to_thread.run_sync(anyio.from_thread.run, answer, 1)
            done = True
        return turns

    assert run(main) >= 50


# -- the limiter -----------------------------------------------------------------------------------


def test_the_default_limiter(run: Callable[..., Any], patched: Coordinator, gate: Gate) -> None:
    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 3
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(anyio.to_thread.run_sync, gate)
            await anyio.wait_all_tasks_blocked()
            assert limiter.borrowed_tokens == 3
            assert limiter.statistics().tasks_waiting == 7
            gate.open()
        assert limiter.borrowed_tokens == 0

    run(main)
    assert gate.calls == 10
    assert gate.most_inside <= 3


def test_a_limiter_of_ones_own(run: Callable[..., Any], patched: Coordinator) -> None:
    async def main() -> None:
        limiter = anyio.CapacityLimiter(2)

        def look() -> tuple[int, int]:
            mine = limiter.borrowed_tokens
            return mine, anyio.from_thread.run_sync(default.statistics).borrowed_tokens

        default = anyio.to_thread.current_default_thread_limiter()
        assert await anyio.to_thread.run_sync(look, limiter=limiter) == (1, 0)
        limiter.acquire_nowait()
        with pytest.raises(RuntimeError, match="already holding"):
            await anyio.to_thread.run_sync(look, limiter=limiter)
        limiter.release()

    run(main)


def test_anything_that_limits(run: Callable[..., Any], patched: Coordinator) -> None:
    async def main() -> None:
        semaphore = asyncio.Semaphore(1)
        assert await anyio.to_thread.run_sync(semaphore.locked, limiter=semaphore)
        assert not semaphore.locked()

    run(main)


def test_who_is_cancelled_before_there_is_a_place_runs_nothing(
    run: Callable[..., Any], patched: Coordinator, gate: Gate
) -> None:
    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)
        limiter.acquire_on_behalf_of_nowait("somebody")
        with anyio.move_on_after(0.01) as scope:
            await anyio.to_thread.run_sync(gate, limiter=limiter)
        assert scope.cancelled_caught
        limiter.release_on_behalf_of("somebody")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.to_thread.run_sync(gate)
        assert scope.cancelled_caught
        assert limiter.borrowed_tokens == 0

    run(main)
    assert gate.calls == 0


# -- cancelling ------------------------------------------------------------------------------------


def test_a_cancelled_call_is_waited_for(
    run: Callable[..., Any], patched: Coordinator, gate: Gate
) -> None:
    async def main() -> None:
        result = None
        limiter = anyio.to_thread.current_default_thread_limiter()

        async def call() -> None:
            nonlocal result
            result = await anyio.to_thread.run_sync(gate, "result")
            await anyio.lowlevel.checkpoint()
            raise AssertionError("the next checkpoint is cancelled")

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await gate.entered()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
            assert result is None
            assert limiter.borrowed_tokens == 1
            gate.open()
        assert result == "result"

    run(main)


def test_an_abandoned_call_is_not(
    run: Callable[..., Any], patched: Coordinator, gate: Gate
) -> None:
    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)
        async with anyio.create_task_group() as group:
            group.start_soon(
                functools.partial(
                    anyio.to_thread.run_sync, gate, abandon_on_cancel=True, limiter=limiter
                )
            )
            await gate.entered()
            group.cancel_scope.cancel()
        assert limiter.borrowed_tokens == 0  # as with anyio's threads
        totals = patched.stats().totals
        assert (totals.cancelled, totals.abandoned_now) == (1, 1)
        assert await anyio.to_thread.run_sync(int, limiter=limiter) == 0
        gate.open()

    run(main)


def test_one_that_is_abandoned_before_it_starts_never_runs(
    run: Callable[..., Any], single_patched: Coordinator, gate: Gate
) -> None:
    ran: list[int] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, gate)
            await gate.entered()
            with anyio.move_on_after(0.01) as scope:
                await anyio.to_thread.run_sync(ran.append, 1, abandon_on_cancel=True)
            assert scope.cancelled_caught
            gate.open()

    run(main)
    assert ran == []


def test_who_abandons_gets_what_has_ended(run: Callable[..., Any], patched: Coordinator) -> None:
    async def main() -> None:
        assert await anyio.to_thread.run_sync(int, "5", abandon_on_cancel=True) == 5
        with pytest.raises(ValueError, match="invalid literal"):
            await anyio.to_thread.run_sync(int, "five", abandon_on_cancel=True)

    run(main)


def test_a_task_cancelled_by_asyncio_itself(
    run: Callable[..., Any], patched: Coordinator, gate: Gate
) -> None:
    # Nothing shields from that, with anyio's threads neither.
    async def main() -> None:
        task = asyncio.ensure_future(anyio.to_thread.run_sync(gate))
        await gate.entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        gate.open()

    run(main)


@pytest.mark.parametrize("abandon", [False, True])
def test_check_cancelled(run: Callable[..., Any], patched: Coordinator, abandon: bool) -> None:
    cancelled, checked = threading.Event(), threading.Event()
    seen: list[str] = []

    def function() -> None:
        anyio.from_thread.check_cancelled()
        anyio.from_thread.run_sync(scopes[0].cancel)
        if abandon:
            assert cancelled.wait(TIMEOUT)
        try:
            anyio.from_thread.check_cancelled()
        except BaseException as error:
            seen.append(type(error).__name__)
        finally:
            checked.set()

    scopes: list[Any] = []

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await anyio.to_thread.run_sync(function, abandon_on_cancel=abandon)
            await anyio.sleep(TIMEOUT)
        assert scope.cancelled_caught
        cancelled.set()
        assert checked.wait(TIMEOUT)

    run(main)
    assert seen == ["CancelledError"]


# -- back from the thread --------------------------------------------------------------------------


async def answer(value: int) -> tuple[int, asyncio.AbstractEventLoop]:
    await anyio.lowlevel.checkpoint()
    return value, asyncio.get_running_loop()


def test_from_thread(run: Callable[..., Any], patched: Coordinator) -> None:
    def function() -> Any:
        first = anyio.from_thread.run(answer, 1)
        return first, anyio.from_thread.run_sync(asyncio.get_running_loop)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await anyio.to_thread.run_sync(function) == ((1, loop), loop)

    run(main)


def test_what_is_run_from_a_thread_is_cancelled_with_it(
    run: Callable[..., Any], patched: Coordinator
) -> None:
    entered: list[str] = []

    async def forever(scope: Any) -> None:
        scope.cancel()
        entered.append("async")
        await anyio.sleep(TIMEOUT)

    async def main() -> None:
        with anyio.CancelScope() as scope:
            await anyio.to_thread.run_sync(anyio.from_thread.run, forever, scope)
        assert scope.cancelled_caught

    run(main)
    assert entered == ["async"]


def test_threads_within_tasks_within_threads(
    run: Callable[..., Any], single_patched: Coordinator
) -> None:
    # One worker: those that wait for the loop make room for others.
    depth = 6

    def down(level: int) -> int:
        if level == depth:
            return level
        result: int = anyio.from_thread.run(anyio.to_thread.run_sync, down, level + 1)
        return result

    async def main() -> None:
        with anyio.fail_after(TIMEOUT):
            assert await anyio.to_thread.run_sync(down, 0) == depth

    run(main)
    assert single_patched.stats().totals.completed == depth + 1


def test_a_thread_that_waits_for_a_function_on_the_loop(
    run: Callable[..., Any], single_patched: Coordinator
) -> None:
    # `go` is called on the loop, but only after the other call has had the one worker.
    had_it = threading.Event()

    def go() -> str:
        assert had_it.wait(TIMEOUT)
        return "gone"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, anyio.from_thread.run_sync, go)
            group.start_soon(anyio.to_thread.run_sync, had_it.set)

    run(main)


def test_a_worker_belongs_to_no_loop_afterwards(
    run: Callable[..., Any], single_patched: Coordinator
) -> None:
    @task_token_guard
    def plain() -> None:
        anyio.from_thread.run_sync(int)

    async def main() -> None:
        assert await anyio.to_thread.run_sync(anyio.from_thread.run_sync, int) == 0
        with pytest.raises(ValueError, match="invalid"):
            await anyio.to_thread.run_sync(int, "x")
        with use(single_patched), pytest.raises(RuntimeError, match="worker thread"):
            await plain()

    run(main)


def test_portals_of_a_thread_of_their_own(patched: Coordinator) -> None:
    with anyio.from_thread.start_blocking_portal() as portal:
        token = portal.call(anyio.to_thread.run_sync, token_here)
        assert token.core is patched


# -- failures --------------------------------------------------------------------------------------


class Custom(BaseException):
    pass


def raiser(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


ERRORS: list[Callable[[], BaseException]] = [
    lambda: ValueError("value"),
    lambda: StopIteration("stop"),
    lambda: StopAsyncIteration("stop"),
    lambda: asyncio.CancelledError("message"),
    lambda: SystemExit(3),
    lambda: KeyboardInterrupt(),
    lambda: concurrent.futures.CancelledError(),
    lambda: FunctionExited("one of ours"),
    lambda: Custom(),
]


@pytest.mark.parametrize("abandon", [False, True])
@pytest.mark.parametrize("make", ERRORS, ids=lambda make: type(make()).__name__)
def test_failures_arrive_as_from_anyios_threads(
    coordinator: Coordinator, make: Callable[[], BaseException], abandon: bool
) -> None:
    async def main() -> tuple[BaseException, BaseException]:
        error = make()
        try:
            await anyio.to_thread.run_sync(raiser(error), abandon_on_cancel=abandon)
        except BaseException as caught:
            return error, caught
        raise AssertionError("nothing was raised")

    outcomes = [anyio.run(main)]
    undo = patch_anyio(coordinator)
    outcomes.append(anyio.run(main))
    undo()
    described = []
    for error, caught in outcomes:
        same = caught is error
        cause = caught.__cause__ is error
        described.append((type(caught), str(caught), same, cause, caught.__context__ is None))
        trace, names = error.__traceback__, []
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert names[-1] == "function"
    assert described[0] == described[1]
    assert coordinator.stats().totals.failed == 1


def test_a_coordinator_that_was_stopped(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator()
    undo = patch_anyio(coordinator)
    try:
        coordinator.stop()
        with pytest.raises(CoordinatorStopped):
            anyio.run(anyio.to_thread.run_sync, int)
    finally:
        undo()


# -- several patches, and none ---------------------------------------------------------------------


def core_of(coordinators: dict[Any, str]) -> str:
    token = anyio.run(anyio.to_thread.run_sync, token_here)
    return "anyio" if token is None else coordinators[token.core]


def test_patches_are_undone_in_any_order(new_coordinator: NewCoordinator) -> None:
    names = {new_coordinator(): "a", new_coordinator(): "b", new_coordinator(): "c"}
    a, b, c = (patch_anyio(coordinator) for coordinator in names)
    assert core_of(names) == "c"
    b()
    assert core_of(names) == "c"
    c()
    c()
    assert core_of(names) == "a"
    b()
    d = patch_anyio(next(iter(names)))
    a()
    assert core_of(names) == "a"
    d()
    assert core_of(names) == "anyio"
    assert methods() == ORIGINAL


def test_one_loop_and_all_others(new_coordinator: NewCoordinator) -> None:
    names = {new_coordinator(): "one", new_coordinator(): "others"}
    one, others = names

    async def elsewhere() -> str:
        # not asyncio.to_thread, whose context says that a library is running
        return await asyncio.get_running_loop().run_in_executor(None, core_of, names)

    async def main() -> None:
        undo_one = patch_anyio(one, asyncio.get_running_loop())
        assert (await anyio.to_thread.run_sync(token_here)).core is one
        assert await elsewhere() == "anyio"
        undo_others = patch_anyio(others)
        assert (await anyio.to_thread.run_sync(token_here)).core is one
        assert await elsewhere() == "others"
        undo_one()
        assert (await anyio.to_thread.run_sync(token_here)).core is others
        undo_others()
        assert await anyio.to_thread.run_sync(token_here) is None

    anyio.run(main)
    assert methods() == ORIGINAL


def test_a_loop_that_has_gone_is_forgotten(coordinator: Coordinator) -> None:
    async def forgets() -> None:
        patch_anyio(coordinator, asyncio.get_running_loop())
        await anyio.to_thread.run_sync(int)

    for _ in range(3):
        asyncio.run(forgets())
    import gc

    gc.collect()
    undo = patch_anyio(coordinator)
    undo()
    assert methods() == ORIGINAL
    assert coordinator.stats().totals.completed == 3


def test_calls_under_way_go_on(
    run: Callable[..., Any], coordinator: Coordinator, gate: Gate
) -> None:
    async def main() -> None:
        undo = patch_anyio(coordinator)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, gate)
            await gate.entered()
            undo()
            assert await anyio.to_thread.run_sync(token_here) is None
            gate.open()

    run(main)
    assert coordinator.stats().totals.completed == 1


def test_somebody_elses_wrapper_stays(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = patch_anyio(coordinator)
    below = inside.AsyncIOBackend.run_sync_in_worker_thread
    calls: list[Any] = []

    def wrapper(
        cls: Any, func: Any, args: Any, abandon_on_cancel: Any = False, limiter: Any = None
    ):
        calls.append(func)
        return below(func, args, abandon_on_cancel, limiter)

    with monkeypatch.context() as patch:
        patch.setattr(inside.AsyncIOBackend, "run_sync_in_worker_thread", classmethod(wrapper))
        undo()
        assert anyio.run(anyio.to_thread.run_sync, token_here) is None
        again = patch_anyio(coordinator)
        assert anyio.run(anyio.to_thread.run_sync, token_here).core is coordinator
        again()
        assert anyio.run(anyio.to_thread.run_sync, token_here) is None
        assert calls.count(token_here) == 2
    setattr(inside.AsyncIOBackend, METHODS[0], ORIGINAL[0])


def test_many_threads_patch_and_undo(coordinator: Coordinator) -> None:
    failures: list[BaseException] = []

    def body() -> None:
        try:
            for _ in range(20):
                undo = patch_anyio(coordinator)
                assert anyio.run(anyio.to_thread.run_sync, token_here).core is coordinator
                undo()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert methods() == ORIGINAL


# -- an anyio that has changed ---------------------------------------------------------------------


def another_parameter(patch: pytest.MonkeyPatch) -> None:
    async def changed(
        cls: Any, func: Any, args: Any, abandon_on_cancel: bool, limiter: Any, name: str
    ):
        raise AssertionError("it is not called")

    patch.setattr(inside.AsyncIOBackend, METHODS[0], classmethod(changed))


def no_from_thread(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inside.AsyncIOBackend, "run_async_from_thread", None)


def no_scopes(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(inside, "CancelScope")


def another_scope(patch: pytest.MonkeyPatch) -> None:
    class Changed:
        def __init__(self, deadline: float = 0, shield: bool = False) -> None:
            self.parent = None

    patch.setattr(inside, "CancelScope", Changed)


def more_in_the_thread(patch: pytest.MonkeyPatch) -> None:
    # A worker thread of the future tells its functions something that a token does not know of.
    class Changed(inside.WorkerThread):
        def run(self) -> None:
            inside.threadlocals.current_task = self
            super().run()

    patch.setattr(inside, "WorkerThread", Changed)


def limiter_kept(patch: pytest.MonkeyPatch) -> None:
    # An abandoned call keeps its place.
    async def stay(self: Any, kind: Any, *_: Any) -> None:
        if kind is not asyncio.CancelledError:
            self.release()

    patch.setattr(inside.CapacityLimiter, "__aexit__", stay)


def failing(patch: pytest.MonkeyPatch) -> None:
    async def changed(
        cls: Any, func: Any, args: Any, abandon_on_cancel: Any = 0, limiter: Any = None
    ):
        raise NotImplementedError("not like this")

    patch.setattr(inside.AsyncIOBackend, METHODS[0], classmethod(changed))


CHANGES = [
    (another_parameter, r"run_sync_in_worker_thread.*expected \['func', .*found .*'name'"),
    (no_from_thread, "run_async_from_thread.*expected a method"),
    (no_scopes, "CancelScope.*nothing of that name"),
    (another_scope, "_parent_scope"),
    (more_in_the_thread, "what a worker thread is told.*found .*current_task"),
    (limiter_kept, "places of the limiter.*expected 0, found 1"),
    (failing, "not like this"),
]


@pytest.mark.parametrize(
    ("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES]
)
def test_an_anyio_that_has_changed_is_refused(
    coordinator: Coordinator,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
    message: str,
) -> None:
    from importlib.metadata import version

    with monkeypatch.context() as patch:
        change(patch)
        before = methods()
        with pytest.raises(RuntimeError, match=f"anyio {version('anyio')}.*{message}"):
            patch_anyio(coordinator)
        assert methods() == before
    undo = patch_anyio(coordinator)  # nothing of the failure is left
    undo()


def test_without_anyio(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyio", None)
    with pytest.raises(ImportError, match="anyio=True needs anyio"):
        patch_anyio(coordinator)


# -- frameworks ------------------------------------------------------------------------------------


def test_plain_handlers_of_fastapi(patched: Coordinator) -> None:
    fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed for this interpreter")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed for this interpreter")
    responses = fastapi.responses
    app = fastapi.FastAPI()
    closed: list[bool] = []

    def dependency() -> Iterator[str]:
        yield str(current_token() is not None)
        closed.append(current_token() is not None)

    def handler(seen: str = fastapi.Depends(dependency)) -> dict[str, Any]:
        token = current_token()
        return {"operation": None if token is None else token.operation_type, "dependency": seen}

    def stream() -> Any:
        return responses.StreamingResponse(str(current_token() is not None) for _ in range(3))

    def failing() -> None:
        raise fastapi.HTTPException(418, "a teapot")

    app.get("/handler")(handler)
    app.get("/stream")(stream)
    app.get("/failing")(failing)

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = (await client.get("/handler")).json()
            assert answer["operation"].endswith("<locals>.handler")
            assert answer["dependency"] == "True"
            assert (await client.get("/stream")).text == "TrueTrueTrue"
            assert (await client.get("/failing")).status_code == 418

    asyncio.run(main())
    assert closed == [True]
    failed = patched.stats().operations
    name = f"{__name__}.test_plain_handlers_of_fastapi.<locals>.failing"
    assert failed[name].failed == 1
