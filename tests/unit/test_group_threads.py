"""`with TokenGroup()` on threads without a loop, and in functions that workers run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    Token,
    TokenCancelled,
    TokenDeadlock,
    TokenGroup,
    checkpoint,
    current_token,
    task_token_guard,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewGate

TIMEOUT = 20.0

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


class Wrong(Exception):
    pass


def fail(text: str = "wrong") -> None:
    raise Wrong(text)


def told(group: BaseExceptionGroup[BaseException]) -> list[str]:
    return sorted(f"{type(each).__name__}: {each}" for each in group.exceptions)


class Elsewhere:
    """Leaves a group on a thread of its own, so that the test can look meanwhile."""

    def __init__(self, body: Callable[[TokenGroup], object], **settings: Any) -> None:
        self.error: BaseException | None = None
        self.group = TokenGroup(**settings)
        self._body = body
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.group as group:
                self._body(group)
        except BaseException as error:
            self.error = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> BaseException | None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "the group was never left"
        return self.error


def test_all_have_ended_when_it_is_left(coordinator: Coordinator) -> None:
    with TokenGroup() as group:
        tokens = [group.start(divmod, number, 7) for number in range(100)]
        assert tokens[5].result() == (0, 5)
    assert all(token.done() for token in tokens)


def test_the_first_failure_cancels_while_the_body_runs(
    coordinator: Coordinator, new_gate: NewGate
) -> None:
    holding, failing = new_gate(), new_gate()

    def fails() -> None:
        failing()
        fail()

    with pytest.raises(ExceptionGroup, match="TokenGroup") as caught:  # noqa: SIM117 - the body is long
        with TokenGroup(coordinator=coordinator) as group:
            tokens: list[Token[Any]] = [group.start(holding) for _ in range(3)]
            tokens.append(group.start(fails))
            holding.wait_entered(3)
            failing.wait_entered()
            tokens += [group.start(holding) for _ in range(20)]
            failing.open()
            with pytest.raises(concurrent.futures.CancelledError):
                tokens[0].result(TIMEOUT)
            assert all(token.done() for token in tokens[4:])
            late = group.start(holding)  # it does not run
            assert late.cancelled()
            holding.open()
    assert told(caught.value) == ["Wrong: wrong"]
    assert holding.calls == 3
    assert not any(token.abandoned for token in tokens)


def test_leaving_waits_for_abandoned_functions(coordinator: Coordinator, new_gate: NewGate) -> None:
    holding, failing = new_gate(), new_gate()

    def fails() -> None:
        failing()
        fail()

    def body(group: TokenGroup) -> None:
        tokens.append(group.start(holding))
        group.start(fails)

    tokens: list[Token[Any]] = []
    there = Elsewhere(body, coordinator=coordinator)
    holding.wait_entered()
    failing.open()
    with pytest.raises(concurrent.futures.CancelledError):
        tokens[0].result(TIMEOUT)
    assert tokens[0].abandoned
    assert there.waits
    holding.open()
    error = there.join()
    assert isinstance(error, ExceptionGroup)
    assert told(error) == ["Wrong: wrong"]
    assert not tokens[0].abandoned


def test_abandon(coordinator: Coordinator, gate: Gate) -> None:
    with pytest.raises(ExceptionGroup), TokenGroup(abandon=True) as group:
        token = group.start(gate)
        gate.wait_entered()
        group.start(fail)
    assert token.abandoned
    gate.open()


def test_a_body_that_raises(coordinator: Coordinator, gate: Gate) -> None:
    with pytest.raises(ExceptionGroup) as caught, TokenGroup() as group:
        token = group.start(gate)
        gate.wait_entered()
        gate.open()
        raise LookupError("the body's own")
    assert told(caught.value) == ["LookupError: the body's own"]
    assert token.done()


def test_a_body_that_asks_a_failed_token(coordinator: Coordinator) -> None:
    with pytest.raises(ExceptionGroup) as caught, TokenGroup() as group:
        group.start(fail).result()
    assert told(caught.value) == ["Wrong: wrong"]


def test_a_body_that_asks_a_cancelled_token(coordinator: Coordinator, gate: Gate) -> None:
    """Cancelled by hand: that goes on as it is. Cancelled because another failed: that is told."""
    with pytest.raises(concurrent.futures.CancelledError), TokenGroup() as group:
        token = group.start(gate)
        gate.wait_entered()
        token.cancel()
        gate.open()
        token.result()
    with pytest.raises(ExceptionGroup) as caught, TokenGroup() as group:
        coordinator.pause()
        token = group.start(gate)
        coordinator.kill_operation(group.start(int).operation_type, "enough")
        coordinator.resume()
        token.result()
    assert len(caught.value.exceptions) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_leaving_for_good(coordinator: Coordinator, gate: Gate, kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="now"), TokenGroup() as group:
        token = group.start(gate)
        gate.wait_entered()
        gate.open()
        raise kind("now")
    assert not token.abandoned


def test_a_failure_of_another_thread_reaches_the_group(
    coordinator: Coordinator, gate: Gate
) -> None:
    with TokenGroup() as group:
        crowd = [threading.Thread(target=group.start, args=(len, "x")) for _ in range(8)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join(TIMEOUT)
    with pytest.raises(RuntimeError, match="has been left"):
        group.start(int)


# -- Ctrl-C ---------------------------------------------------------------------------------------


class CtrlC:
    """Presses Ctrl-C again and again, because one that comes just before a thread blocks is not heard
    (CPython looks when a signal interrupts the wait). Heard is one for each moment, once it has come."""

    def __init__(self, *moments: Callable[[], object]) -> None:
        self._moments = list(moments)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._press)

    def _press(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._enough.wait(0.005):
            signal.pthread_kill(main, signal.SIGINT)

    def _hear(self, number: int, frame: object) -> None:
        if self._moments and self._moments[0]():
            del self._moments[0]
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._hear)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(TIMEOUT)
        signal.signal(signal.SIGINT, self._before)
        assert not self._moments, "Ctrl-C was not heard"


@posix
def test_ctrl_c_while_it_waits(coordinator: Coordinator, gate: Gate) -> None:
    """The tokens are cancelled, their functions waited for, and Ctrl-C goes on."""
    group = TokenGroup()

    def open_later() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            executing.result(TIMEOUT)
        abandoned.append(executing.abandoned)
        gate.open()

    abandoned: list[bool] = []
    opener = threading.Thread(target=open_later)
    with CtrlC(lambda: group._exiting), pytest.raises(KeyboardInterrupt), group:
        executing = group.start(gate)
        gate.wait_entered()
        opener.start()
    assert executing.cancelled()
    assert not executing.abandoned
    opener.join(TIMEOUT)
    assert abandoned == [True]


@posix
def test_a_second_ctrl_c_leaves_at_once(coordinator: Coordinator, gate: Gate) -> None:
    group = TokenGroup()
    tokens: list[Token[Any]] = []
    moments = (lambda: group._exiting, lambda: tokens[0].cancelled())
    with CtrlC(*moments), pytest.raises(KeyboardInterrupt), group:
        tokens.append(group.start(gate))
        gate.wait_entered()
    assert tokens[0].abandoned
    with pytest.raises(RuntimeError, match="has been left"):
        group.start(int)
    gate.open()


# -- in workers ------------------------------------------------------------------------------------


def test_one_worker_is_enough(single: Coordinator) -> None:
    """It runs the group's tokens itself, also those of groups within."""

    def tree(depth: int) -> int:
        if not depth:
            return 1
        with TokenGroup() as group:
            children = [group.start(tree, depth - 1) for _ in range(3)]
        return sum(child.result() for child in children)

    with TokenGroup() as group:
        root = group.start(tree, 4)
    assert root.result() == 81


def test_a_worker_steps_aside_for_what_it_cannot_run(single: Coordinator, gate: Gate) -> None:
    """A token that executes elsewhere is waited for; its function needs a place to go on."""

    def outer() -> int:
        with TokenGroup() as group:
            token = group.start(gate, 3)
            token.cancel()
            again = group.start(int, 7)
        return again.result()

    gate.open()
    token = single.submit(outer)
    assert token.result(TIMEOUT) == 7


def test_an_async_group_in_a_workers_own_loop(single: Coordinator) -> None:
    async def inside() -> list[int]:
        async with TokenGroup() as group:
            tokens = [group.start(int, number) for number in range(10)]
        return [token.result() for token in tokens]

    assert single.submit(lambda: asyncio.run(inside())).result(TIMEOUT) == list(range(10))


def test_a_failure_in_a_worker(coordinator: Coordinator) -> None:
    def outer() -> None:
        with TokenGroup() as group:
            group.start(fail, "inner")

    with pytest.raises(ExceptionGroup) as caught, TokenGroup() as group:
        group.start(outer)
    (failure,) = caught.value.exceptions
    assert isinstance(failure, ExceptionGroup)
    assert told(failure) == ["Wrong: inner"]


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_group_that_could_never_be_left(coordinator: Coordinator, on_loop: bool) -> None:
    """Its token waits for the place that the body's own function has."""

    @task_token_guard(f"its own limit {on_loop}", limit=1)
    def outer(depth: int) -> None:
        if depth == 0:
            return
        if on_loop:
            asyncio.run(on_a_loop())
        else:
            with TokenGroup() as group:
                group.start(outer, 0)

    async def on_a_loop() -> None:
        async with TokenGroup() as group:
            group.start(outer, 0)

    with pytest.raises(ExceptionGroup) as caught:
        outer(1).result(TIMEOUT)
    (failure,) = caught.value.exceptions
    assert isinstance(failure, TokenDeadlock)


def test_a_function_that_waits_for_the_group_it_is_in(coordinator: Coordinator) -> None:
    """A sibling waits for the outer function, which waits for the group."""
    found: list[BaseException] = []

    def sibling(token: Token[Any]) -> None:
        try:
            token.result()
        except TokenDeadlock as deadlock:
            found.append(deadlock)
            raise

    def outer() -> None:
        mine = current_token()
        assert mine is not None
        with TokenGroup() as group:
            group.start(sibling, mine)

    with pytest.raises(ExceptionGroup) as caught:
        coordinator.submit(outer).result(TIMEOUT)
    assert isinstance(caught.value.exceptions[0], TokenDeadlock)


def test_a_cancelled_function_leaves_by_its_checkpoint(
    coordinator: Coordinator, new_gate: NewGate
) -> None:
    entered, holding = new_gate(), new_gate()
    ended: list[BaseException] = []
    inner: list[Token[Any]] = []

    def outer() -> None:
        try:
            with TokenGroup() as group:
                inner.append(group.start(holding))
                entered()
                holding.open()
                checkpoint()
        except BaseException as error:
            ended.append(error)
            raise

    with TokenGroup() as group:
        token = group.start(outer)
        entered.wait_entered()
        token.cancel()
        entered.open()
    assert [type(each) for each in ended] == [TokenCancelled]
    assert inner[0].done()
    assert not inner[0].abandoned


def test_misuse(coordinator: Coordinator) -> None:
    group = TokenGroup()
    with group, pytest.raises(RuntimeError, match="entered before"), group:
        pass
    with pytest.raises(RuntimeError, match="entered before"), group:
        pass
