"""Fixtures for all tests: coordinators that must be left clean, and functions a test can hold."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pytest

import tokengate
from tokengate import (
    Coordinator,
    GuardedFunction,
    Token,
    TokenExpired,
    TokenState,
    gather,
    task_token_guard,
    use,
)
from tokengate.stats import OperationStats, Totals
from tokengate.testing.leftovers import settle

TIMEOUT = 20.0  # seconds after which what should have happened counts as hung

_serial = itertools.count(1)


class Gate:
    """A function for tokens to run: it enters, and stays inside until the test opens the gate.

    Called with one argument it returns that, else None. Raises TimeoutError where the test never
    opens it, so that a failed test ends.
    """

    __name__ = __qualname__ = "gate"
    __module__ = "tests"

    def __init__(self) -> None:
        self._entries = threading.Semaphore(0)
        self._pass = threading.Semaphore(0)
        self._open = threading.Event()
        self._lock = threading.Lock()
        self.inside = 0
        self.most_inside = 0
        self.calls = 0

    def __call__(self, value: Any = None) -> Any:
        with self._lock:
            self.calls += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        self._entries.release()
        try:
            if not self._pass.acquire(timeout=TIMEOUT):
                raise TimeoutError("the test never opened the gate")
            if self._open.is_set():
                self._pass.release()
        finally:
            with self._lock:
                self.inside -= 1
        return value

    def wait_entered(self, count: int = 1) -> None:
        """Block until that many more calls have entered. They need no event loop for it."""
        for _ in range(count):
            assert self._entries.acquire(timeout=TIMEOUT), "no function has started"

    async def entered(self, count: int = 1) -> None:
        """The same, while the loop turns."""
        await asyncio.sleep(0)  # to_thread alone need not give other tasks a turn (3.12 and later)
        await asyncio.to_thread(self.wait_entered, count)

    def let_pass(self, count: int = 1) -> None:
        """Let that many calls return; the gate stays closed for the others."""
        self._pass.release(count)

    def open(self) -> None:
        """Let all calls return, those to come as well."""
        if not self._open.is_set():
            self._open.set()
            self._pass.release()


class NewCoordinator(Protocol):
    def __call__(self, **settings: Any) -> Coordinator: ...


class NewGate(Protocol):
    def __call__(self) -> Gate: ...


class RunPython(Protocol):
    def __call__(self, code: str, text: str = "") -> str: ...


class Until(Protocol):
    async def __call__(self, condition: Callable[[], object]) -> None: ...


Other: TypeAlias = GuardedFunction[..., Any]


class Same(Protocol):
    def __call__(self, value: Any = None) -> Any: ...


class OthersRun(Protocol):
    async def __call__(self) -> None: ...


class Expires(Protocol):
    async def __call__(self, token: Token[Any]) -> TokenExpired: ...


class Ended(Protocol):
    async def __call__(self, coordinator: Coordinator, token: Any) -> Any: ...


class AddUp(Protocol):
    def __call__(self, coordinator: Coordinator, name: str) -> bool: ...


def unended(of: OperationStats | Totals) -> int:
    """Tokens that were submitted and have not ended."""
    return of.submitted - (of.completed + of.failed + of.cancelled + of.expired + of.killed)


def same(value: Any = None) -> Any:
    return value


@task_token_guard
def other(value: Any = "other") -> Any:
    return value


class Pending:
    """A future or a token that the test ends when it likes, so that one test body asks both: what
    asyncio's own future does is what a token must do."""

    def __init__(self) -> None:
        self.future: Any = None

    def finish(self, value: Any) -> None:
        """Complete it; callbacks follow on the loop."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Let it fail; callbacks follow on the loop."""
        raise NotImplementedError


class PendingFuture(Pending):
    """asyncio's own future: the oracle."""

    def __init__(self) -> None:
        super().__init__()
        self.future = asyncio.get_running_loop().create_future()

    def finish(self, value: Any) -> None:
        self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        self.future.set_exception(error)


class PendingToken(Pending):
    """A token whose function is executing and returns or raises when told."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()
        self._told = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        executing = threading.Event()

        def run() -> Any:
            executing.set()
            if not self._told.wait(TIMEOUT):
                raise TimeoutError("the test never ended the token")
            if self._error is not None:
                raise self._error
            return self._value

        self.future = coordinator.submit(run)
        assert executing.wait(TIMEOUT)

    def finish(self, value: Any) -> None:
        self._value = value
        self._told.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._told.set()


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """The errors asyncio and tokengate have logged. What a test expects it takes out; what is left
    at the end fails it, for a user would see it on the terminal."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keep(logging.WARNING)
    loggers = [logging.getLogger("asyncio"), logging.getLogger("tokengate")]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)
    assert not records, f"logged: {[record.getMessage() for record in records]}"


@pytest.fixture
def new_coordinator(logged: list[logging.LogRecord]) -> Iterator[NewCoordinator]:
    """Makes coordinators. After the test each must have no unended token; it is then stopped, and
    must leave no thread and no function that runs on."""
    made: list[tuple[Coordinator, str]] = []

    def make(**settings: Any) -> Coordinator:
        name = settings.setdefault("name", f"test{next(_serial)}")
        coordinator = Coordinator(**settings)
        made.append((coordinator, name))
        return coordinator

    yield make
    left = [settle(coordinator, TIMEOUT) for coordinator, _ in made]
    assert not any(left), "\n".join(left)
    for coordinator, name in made:
        stats = coordinator.stats()
        assert stats.totals.abandoned_now == 0, f"{name}: a function runs on"
        assert stats.lanes["thread"].workers == 0, f"{name}: workers are left"
        threads = [t.name for t in threading.enumerate() if t.name.startswith(f"{name}-")]
        assert not threads, f"threads are left: {threads}"


@pytest.fixture
def coordinator(new_coordinator: NewCoordinator) -> Iterator[Coordinator]:
    """A fresh coordinator of four workers, on which the test's guarded calls run."""
    fresh = new_coordinator(thread_workers=4)
    with use(fresh):
        yield fresh


@pytest.fixture
def single(new_coordinator: NewCoordinator) -> Iterator[Coordinator]:
    """The same with one worker: tokens run one after another, in order."""
    fresh = new_coordinator(thread_workers=1)
    with use(fresh):
        yield fresh


@pytest.fixture
def new_gate() -> Iterator[NewGate]:
    """Makes gates; what is still inside after the test is let go."""
    gates: list[Gate] = []

    def make() -> Gate:
        gate = Gate()
        gates.append(gate)
        return gate

    yield make
    for gate in gates:
        gate.open()


@pytest.fixture
def gate(new_gate: NewGate) -> Gate:
    """A function that holds its worker until the test opens it; see `Gate`."""
    return new_gate()


@pytest.fixture(params=["future", "token"])
def pending(
    request: pytest.FixtureRequest, coordinator: Coordinator
) -> Iterator[Callable[[], Pending]]:
    """Makes pending tokens, and in a second run of the same test asyncio futures: the oracle."""
    made: list[Pending] = []

    def make() -> Pending:
        one = PendingFuture() if request.param == "future" else PendingToken(coordinator)
        made.append(one)
        return one

    yield make
    for one in made:
        if isinstance(one, PendingToken):
            one.finish(None)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An operation nobody else has named."""
    return f"operation {next(_serial)} of {request.module.__name__}"


@pytest.fixture(name="same")
def same_() -> Same:
    """A function that returns its argument."""
    return same


@pytest.fixture(name="other")
def other_() -> Other:
    """A guarded function of no policy, which returns its argument, by default "other"."""
    return other


@pytest.fixture
def others_run() -> OthersRun:
    """`await others_run()`: free workers have had every chance to take what they may take."""

    async def run() -> None:
        assert await gather(*[other() for _ in range(20)]) == ["other"] * 20

    return run


@pytest.fixture
def expires() -> Expires:
    """`await expires(token)`: the error of a token that must expire."""

    async def wait(token: Token[Any]) -> TokenExpired:
        with pytest.raises(TokenExpired) as told:
            await asyncio.wait_for(asyncio.shield(token), TIMEOUT)
        assert token.state is TokenState.EXPIRED
        return told.value

    return wait


@pytest.fixture
def ended() -> Ended:
    """`await ended(coordinator, token)`: the token, once it has ended. What hangs is killed, so that
    the failed test ends."""

    async def wait(coordinator: Coordinator, token: Any) -> Any:
        done, _ = await asyncio.wait([token], timeout=3)
        if not done:
            for _ in range(5):
                coordinator.discard()
                await asyncio.wait([token], timeout=0.2)
            if token.done() and not token.cancelled():
                token.exception()
            pytest.fail(f"{token!r} would have waited for ever")
        return token

    return wait


@pytest.fixture
def add_up() -> AddUp:
    """`add_up(coordinator, name)`: whether each token submitted to the operation has ended, once."""

    def check(coordinator: Coordinator, name: str) -> bool:
        return unended(coordinator.stats().operations[name]) == 0

    return check


@pytest.fixture
def until() -> Until:
    """`await until(condition)`: turn the loop until it holds; fails the test if it never does."""

    async def turn(condition: Callable[[], object]) -> None:
        turns = itertools.count()
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                # A loop that never sleeps gives the GIL away only for moments, and who waits for it
                # has to be lucky to get it: sixty threads that pass a semaphore on need ten seconds.
                await asyncio.sleep(0 if next(turns) < 100 else 0.001)

    return turn


@pytest.fixture
def run_python() -> RunPython:
    """`run_python(code, text)`: run code in an interpreter of its own, with that text as input; gives
    what it printed. Fails the test, with all it said, where it fails or crashes."""

    def run(code: str, text: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-X", "faulthandler", "-c", code],
            input=text,
            env={**os.environ, "PYTHONPATH": str(Path(tokengate.__file__).parent.parent)},
            capture_output=True,
            text=True,
            timeout=3 * TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What reached `sys.unraisablehook`, for tests that expect it; the test empties the list."""
    caught: list[Any] = []

    def keep(info: Any) -> None:
        # Not the object itself: keeping it would bring it back to life.
        caught.append((info.exc_type, str(info.exc_value)))

    with contextlib.ExitStack() as stack:
        stack.enter_context(monkeypatch.context()).setattr(sys, "unraisablehook", keep)
        yield caught
        gc.collect()
    assert not caught
