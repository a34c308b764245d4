"""The coordinator against a model in pure Python: hypothesis picks what happens, in any order.

Every function a token runs is held at a gate, so that between two steps the model knows the state of
each token exactly: as many functions are inside as there are places, in the order of submission, and
nothing moves until the next step moves it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import io
import itertools
import logging
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed here")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import tokengate
from tokengate import (
    Coordinator,
    CoordinatorStopped,
    FunctionExited,
    GuardedFunction,
    Token,
    TokenKilled,
    TokenState,
    _core,
    task_token_guard,
)

R = TypeVar("R")
TIMEOUT = 20.0  # seconds after which what should have happened counts as hung
OPERATIONS = ("first", "second")

_serial = itertools.count(1)


# -- the lifecycle, from the table the core is built on ---------------------------------------------


def _reachable() -> dict[int, set[int]]:
    after: dict[int, set[int]] = {int(state): {int(state)} for state in TokenState}
    for _ in TokenState:
        for source, target, _edge in _core.edges():
            after[source] |= after[target]
    return after


REACHABLE = _reachable()


# -- the model --------------------------------------------------------------------------------------


class Held:
    """What a token runs: it goes in, and comes out when, and as, the test says."""

    def __init__(self, entered: queue.SimpleQueue[Held]) -> None:
        self._entered = entered
        self._leave = threading.Event()
        self.runs = 0
        self.outcome: object = None

    def __call__(self) -> object:
        self.runs += 1
        self._entered.put(self)
        if not self._leave.wait(10 * TIMEOUT):
            raise TimeoutError("the test never let this function return")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def let_go(self, outcome: object) -> None:
        self.outcome = outcome
        self._leave.set()


class Mark:
    """A callback that counts its calls."""

    def __init__(self) -> None:
        self.calls: list[Token[object]] = []
        self.called = asyncio.Event()

    def __call__(self, token: Token[object]) -> None:
        self.calls.append(token)
        self.called.set()


QUEUED = "queued"  # WAITING or ADMITTED: which of the two is the gate's business
EXECUTING = "executing"


@dataclass(eq=False)
class Entry:
    """What the model knows of a token."""

    token: Token[object]
    held: Held
    operation: str
    state: str | TokenState = QUEUED
    ran: bool = False
    abandoned: bool = False
    rejected: bool = False
    message: object = None  # of the cancellation
    reason: str = ""  # of the kill
    marks: list[Mark] = field(default_factory=list)  # added and not removed; each is called once
    removed: list[Mark] = field(default_factory=list)  # must never be called
    delivered: bool = False  # the loop has run since it ended
    last_seen: TokenState = TokenState.CREATED

    def __repr__(self) -> str:
        return f"<{self.token!r}, model: {self.state}>"

    @property
    def ended(self) -> bool:
        return isinstance(self.state, TokenState)


@dataclass(eq=False)
class Awaiter:
    """A task on the test's loop that waits for tokens."""

    task: asyncio.Task[Any]
    entries: list[Entry]
    way: str
    cancelled: bool = False

    @property
    def due(self) -> bool:
        return self.cancelled or all(entry.ended for entry in self.entries)


class Machine(RuleBasedStateMachine):
    """See the module."""

    coordinator: Coordinator

    @initialize(workers=st.integers(1, 3))
    def begin(self, workers: int) -> None:
        self.name = f"machine{next(_serial)}"
        self.coordinator = Coordinator(thread_workers=workers, name=self.name)
        self.places = workers
        self.stopped = False
        self.loop = asyncio.new_event_loop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.entered: queue.SimpleQueue[Held] = queue.SimpleQueue()
        self.entries: list[Entry] = []
        self.awaiters: list[Awaiter] = []
        self.rejected = dict.fromkeys(OPERATIONS, 0)
        self.abandoned_total = dict.fromkeys(OPERATIONS, 0)
        self.guards: dict[str, GuardedFunction[[Held], object]] = {
            operation: task_token_guard(f"machine.{operation}")(_run).options(
                coordinator=self.coordinator
            )
            for operation in OPERATIONS
        }

    # -- steps of the model ---------------------------------------------------------------------

    def pick(self, number: int, condition: Callable[[Entry], bool]) -> Entry | None:
        fitting = [entry for entry in self.entries if condition(entry)]
        return fitting[number % len(fitting)] if fitting else None

    def of(self, state: str | TokenState, operation: str | None = None) -> list[Entry]:
        return [
            entry
            for entry in self.entries
            if entry.state == state and operation in (None, entry.operation)
        ]

    def live(self, operation: str | None = None) -> list[Entry]:
        return self.of(QUEUED, operation) + self.of(EXECUTING, operation)

    def drive(self, work: Coroutine[Any, Any, R]) -> R:
        """Run the loop until `work` is done."""
        return self.loop.run_until_complete(asyncio.wait_for(work, TIMEOUT))

    def settle(self) -> None:
        """As many functions go in as there are places; each is the oldest of its operation."""
        free = self.places - len(self.of(EXECUTING))
        for _ in range(min(free, len(self.of(QUEUED)))):
            held = self.entered.get(timeout=TIMEOUT)
            (entry,) = (entry for entry in self.entries if entry.held is held)
            assert entry.state == QUEUED, f"{entry} started"
            entry.state = EXECUTING
            entry.ran = True
        for operation in OPERATIONS:
            queued = self.of(QUEUED, operation)
            started = [e for e in self.entries if e.operation == operation and e.ran]
            if queued and started:
                assert started[-1].token.id < queued[0].token.id, "started out of turn"

    def end(self, entry: Entry, state: TokenState) -> None:
        if entry.state == EXECUTING and state not in (TokenState.COMPLETED, TokenState.FAILED):
            entry.abandoned = True
            self.abandoned_total[entry.operation] += 1
        entry.state = state

    # -- what happens to tokens -----------------------------------------------------------------

    @rule(
        operation=st.sampled_from(OPERATIONS),
        on_loop=st.booleans(),
        way=st.sampled_from(["guard", "submit"]),
    )
    def submit(self, operation: str, on_loop: bool, way: str) -> None:
        held = Held(self.entered)
        guard = self.guards[operation]

        def create() -> Token[object]:
            return guard(held) if way == "guard" else self.coordinator.submit(guard, held)

        async def create_there() -> Token[object]:
            return create()

        token = self.drive(create_there()) if on_loop else create()
        entry = Entry(token, held, operation)
        self.entries.append(entry)
        if self.stopped:
            entry.rejected = True
            entry.reason = "takes no new tokens"
            entry.state = TokenState.KILLED
            self.rejected[operation] += 1
        self.settle()

    @precondition(lambda self: self.of(EXECUTING))
    @rule(
        number=st.integers(0, 7),
        outcome=st.sampled_from([None, 7, ValueError, KeyError, SystemExit, StopIteration]),
    )
    def finish(self, number: int, outcome: object) -> None:
        entry = self.pick(number, lambda e: e.state == EXECUTING)
        assert entry is not None
        if isinstance(outcome, type):
            entry.held.let_go(outcome("from the function"))
            self.end(entry, TokenState.FAILED)
        else:
            entry.held.let_go([outcome])  # a list of its own, to see that it is passed as it is
            self.end(entry, TokenState.COMPLETED)
        self.ask(entry)
        self.settle()

    @rule(number=st.integers(0, 7), message=st.sampled_from([None, "enough"]), twice=st.booleans())
    def cancel(self, number: int, message: str | None, twice: bool) -> None:
        entry = self.pick(number, lambda e: True)
        if entry is None:
            return
        live = not entry.ended
        assert entry.token.cancel(message) is live
        if live:
            entry.message = message
            self.end(entry, TokenState.CANCELLED)
        if twice:
            assert entry.token.cancel("again") is False
        self.settle()

    @rule(number=st.integers(0, 7), twice=st.booleans())
    def kill(self, number: int, twice: bool) -> None:
        entry = self.pick(number, lambda e: True)
        if entry is None:
            return
        live = not entry.ended
        assert entry.token.kill("for the test") is live
        if live:
            entry.reason = "for the test"
            self.end(entry, TokenState.KILLED)
        if twice:
            assert entry.token.kill("again") is False
        self.settle()

    @precondition(lambda self: any(entry.abandoned for entry in self.entries))
    @rule(number=st.integers(0, 7), outcome=st.sampled_from([7, ValueError, SystemExit]))
    def return_late(self, number: int, outcome: object) -> None:
        """The function of an abandoned token returns; its outcome is of no interest."""
        entry = self.pick(number, lambda e: e.abandoned)
        assert entry is not None
        entry.held.let_go(outcome("late") if isinstance(outcome, type) else outcome)
        _poll(lambda: not entry.token.abandoned, f"{entry} to be left")
        entry.abandoned = False
        self.settle()

    # -- asking ---------------------------------------------------------------------------------

    @rule(number=st.integers(0, 7), on_loop=st.booleans())
    def ask_any(self, number: int, on_loop: bool) -> None:
        entry = self.pick(number, lambda e: True)
        if entry is None:
            return
        if on_loop:

            async def there() -> None:
                self.ask(entry, True)

            self.drive(there())
        else:
            self.ask(entry)

    def ask(self, entry: Entry, on_loop: bool = False) -> None:
        """result() and exception() say what the model says; a live token raises at once."""
        if not entry.ended:
            expected: type[BaseException] = asyncio.InvalidStateError if on_loop else TimeoutError
            with pytest.raises(expected):
                entry.token.result(timeout=0)
            with pytest.raises(expected):
                entry.token.exception(timeout=0)
            return
        got: BaseException | None
        try:
            value = entry.token.result(timeout=TIMEOUT)
        except BaseException as error:
            got = error
        else:
            got = None
            assert value is entry.held.outcome
        self.check_error(entry, got, on_loop)
        if entry.state == TokenState.CANCELLED:
            with pytest.raises(type(got)):  # type: ignore[arg-type]
                entry.token.exception()
        else:
            self.check_error(entry, entry.token.exception(), on_loop)

    def check_error(self, entry: Entry, error: BaseException | None, on_loop: bool) -> None:
        outcome = entry.held.outcome
        if entry.state == TokenState.COMPLETED:
            assert error is None
        elif entry.state == TokenState.FAILED:
            if isinstance(outcome, (SystemExit, StopIteration)):
                assert type(error) is FunctionExited
                assert error.__cause__ is outcome
            else:
                assert error is outcome
        elif entry.state == TokenState.CANCELLED:
            family = asyncio if on_loop else concurrent.futures
            assert type(error) is family.CancelledError
            assert error.args == (() if entry.message is None else (entry.message,))
        else:
            stopped = entry.reason != "for the test"
            assert type(error) is (CoordinatorStopped if stopped else TokenKilled)
            assert entry.reason in str(error)

    # -- callbacks ------------------------------------------------------------------------------

    @rule(number=st.integers(0, 7), times=st.integers(1, 3))
    def add_callbacks(self, number: int, times: int) -> None:
        entry = self.pick(number, lambda e: True)
        if entry is None:
            return

        async def there() -> None:
            for _ in range(times):
                mark = Mark()
                entry.marks.append(mark)
                entry.token.add_done_callback(mark)

        self.drive(there())
        if entry.ended:
            self.turn()

    @precondition(lambda self: any(e.marks and not e.ended for e in self.entries))
    @rule(number=st.integers(0, 7), which=st.integers(0, 3))
    def remove_callback(self, number: int, which: int) -> None:
        entry = self.pick(number, lambda e: bool(e.marks) and not e.ended)
        assert entry is not None
        mark = entry.marks.pop(which % len(entry.marks))
        entry.removed.append(mark)
        assert entry.token.remove_done_callback(mark) == 1
        assert entry.token.remove_done_callback(mark) == 0

    # -- awaiting -------------------------------------------------------------------------------

    @rule(
        numbers=st.lists(st.integers(0, 7), min_size=1, max_size=3),
        way=st.sampled_from(["await", "tokengate.gather", "asyncio.gather"]),
    )
    def wait(self, numbers: list[int], way: str) -> None:
        picked = [self.pick(number, lambda e: True) for number in numbers]
        entries = list(dict.fromkeys(entry for entry in picked if entry is not None))
        if not entries:
            return
        if way == "await":
            entries = entries[:1]
        tokens = [entry.token for entry in entries]

        async def waiting() -> object:
            if way == "await":
                return await tokens[0]
            if way == "tokengate.gather":
                return await tokengate.gather(*tokens, return_exceptions=True)
            return await asyncio.gather(*tokens, return_exceptions=True)

        async def start() -> asyncio.Task[object]:
            task = asyncio.ensure_future(waiting())
            for _ in range(3):  # until it waits, so that cancelling it cancels what it waits for
                await asyncio.sleep(0)
            return task

        self.awaiters.append(Awaiter(self.drive(start()), entries, way))
        self.turn()

    @precondition(lambda self: any(not a.due for a in self.awaiters))
    @rule(number=st.integers(0, 7))
    def cancel_awaiter(self, number: int) -> None:
        """Cancelling who waits cancels the tokens, and with them everybody else who waits."""
        waiting = [awaiter for awaiter in self.awaiters if not awaiter.due]
        awaiter = waiting[number % len(waiting)]
        self.loop.call_soon(awaiter.task.cancel)
        awaiter.cancelled = True
        for entry in awaiter.entries:
            if not entry.ended:
                self.end(entry, TokenState.CANCELLED)
        self.turn()
        self.settle()

    @rule()
    def turn(self) -> None:
        """The loop runs: who waits for an ended token hears of it, once, and nobody else."""
        due = [awaiter for awaiter in self.awaiters if awaiter.due]
        marks = [mark for entry in self.entries if entry.ended for mark in entry.marks]

        async def deliver() -> None:
            for mark in marks:
                await mark.called.wait()
            if due:
                await asyncio.wait([awaiter.task for awaiter in due])
            for _ in range(3):  # what must not happen would have happened by then
                await asyncio.sleep(0)

        self.drive(deliver())
        for awaiter in due:
            self.awaiters.remove(awaiter)
            self.check_awaiter(awaiter)
        assert not any(awaiter.task.done() for awaiter in self.awaiters), "woken too early"
        for entry in self.entries:
            entry.delivered = entry.ended

    def check_awaiter(self, awaiter: Awaiter) -> None:
        task = awaiter.task
        if awaiter.cancelled:
            assert task.cancelled()
        elif awaiter.way == "await":
            (entry,) = awaiter.entries
            if entry.state == TokenState.CANCELLED:
                assert task.cancelled()
            elif entry.state == TokenState.COMPLETED:
                assert task.result() is entry.held.outcome
            else:
                self.check_error(entry, task.exception(), True)
        else:
            for entry, outcome in zip(awaiter.entries, task.result(), strict=True):
                if entry.state == TokenState.COMPLETED:
                    assert outcome is entry.held.outcome
                elif entry.state == TokenState.CANCELLED and awaiter.way == "asyncio.gather":
                    assert type(outcome) is asyncio.CancelledError  # with a message of its own
                else:
                    self.check_error(entry, outcome, True)

    @rule(operation=st.sampled_from(OPERATIONS), by_name=st.booleans())
    def drain(self, operation: str, by_name: bool) -> None:
        """drain(op) waits for the tokens of that operation and for no others."""
        if not any(entry.operation == operation for entry in self.entries):
            return

        async def draining() -> bool:
            guard = self.guards[operation]
            what = guard.operation if by_name else guard
            task = asyncio.ensure_future(self.coordinator.drain(what))
            for _ in range(3):
                await asyncio.sleep(0)
            if not self.live(operation):
                await task
                return True
            early = task.done()
            task.cancel()
            await asyncio.wait([task])
            return early

        assert self.drive(draining()) is not bool(self.live(operation))

    # -- the coordinator ------------------------------------------------------------------------

    @precondition(lambda self: not self.stopped)
    @rule(on_loop=st.booleans(), cancel_waiting=st.booleans())
    def stop(self, on_loop: bool, cancel_waiting: bool) -> None:
        """With no time to wait, nobody is waited for: all of them end KILLED."""
        with contextlib.redirect_stderr(io.StringIO()) as report:
            if on_loop:
                self.drive(self.coordinator.aclose(0, cancel_waiting))
            else:
                self.coordinator.stop(0, cancel_waiting)
        self.stopped = True
        executing = len(self.of(EXECUTING))
        if executing:
            assert "abandoned" in report.getvalue()
        for entry in self.live():
            entry.reason = "stopped"
            self.end(entry, TokenState.KILLED)

    @precondition(lambda self: self.stopped)
    @rule()
    def start(self) -> None:
        self.coordinator.start()
        self.stopped = False

    @rule(places=st.integers(1, 4))
    def resize(self, places: int) -> None:
        self.coordinator.resize("thread", places)
        self.places = places
        self.settle()

    # -- invariants -----------------------------------------------------------------------------

    @invariant()
    def states_follow_the_lifecycle(self) -> None:
        for entry in self.entries:
            state = entry.token.state
            assert int(state) in REACHABLE[int(entry.last_seen)], f"{entry.last_seen} -> {state}"
            entry.last_seen = state
            if entry.state == QUEUED:
                assert state in (TokenState.WAITING, TokenState.ADMITTED), entry
            elif entry.state == EXECUTING:
                assert state is TokenState.EXECUTING, entry
            else:
                assert state is entry.state, entry
            assert entry.token.done() is entry.ended
            assert entry.token.cancelled() is (entry.state == TokenState.CANCELLED)
            assert entry.token.abandoned is entry.abandoned, entry

    @invariant()
    def functions_ran_as_reported(self) -> None:
        for entry in self.entries:
            assert entry.held.runs == int(entry.ran), entry
            assert (entry.token.run_time > 0) is entry.ran, entry
            assert entry.token.wait_time >= 0
        assert self.entered.empty(), "a function started that should not have"

    @invariant()
    def callbacks_are_called_once(self) -> None:
        for entry in self.entries:
            for mark in entry.marks:
                if entry.delivered:
                    assert mark.calls == [entry.token]
                elif not entry.ended:
                    assert mark.calls == []
            assert all(mark.calls == [] for mark in entry.removed)
        assert self.complaints == []

    @invariant()
    def the_counters_agree(self) -> None:
        expected = {operation: self.expected_counters(operation) for operation in OPERATIONS}
        # A worker counts a moment after the token has ended for everybody else.
        _poll(lambda: self.counters() == expected, lambda: f"{self.counters()} == {expected}")
        assert self.coordinator.stats().totals.submitted == len(self.entries)

    def expected_counters(self, operation: str) -> dict[str, int]:
        entries = [entry for entry in self.entries if entry.operation == operation]
        return {
            "submitted": len(entries),
            "queued": len(self.of(QUEUED, operation)),
            "executing": len(self.of(EXECUTING, operation)),
            "completed": len(self.of(TokenState.COMPLETED, operation)),
            "failed": len(self.of(TokenState.FAILED, operation)),
            "cancelled": len(self.of(TokenState.CANCELLED, operation)),
            "killed": len(self.of(TokenState.KILLED, operation)),
            "expired": 0,
            "rejected": self.rejected[operation],
            "abandoned_now": sum(entry.abandoned for entry in entries),
            "abandoned_total": self.abandoned_total[operation],
        }

    def counters(self) -> dict[str, dict[str, int]]:
        operations = self.coordinator.stats().operations
        found = {}
        for operation in OPERATIONS:
            figures = operations.get(f"machine.{operation}")
            found[operation] = {
                name: figures.waiting + figures.admitted
                if name == "queued" and figures is not None
                else getattr(figures, name, 0)
                for name in self.expected_counters(operation)
            }
        return found

    # -- the end --------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "coordinator"):
            return
        prefix = f"{self.name}-"
        remaining = self.shut_down()
        gc.collect()
        _poll(
            lambda: not any(thread.name.startswith(prefix) for thread in threading.enumerate()),
            "the workers to end",
        )
        if sys.exc_info()[0] is None:  # the traceback of a failed step holds all of it
            # Free-threaded, what a worker made and others let go of last is counted off by the
            # worker itself as its thread ends, which is after `threading` has forgotten it.
            _poll(
                lambda: all(left() is None for left in remaining) or gc.collect() < 0,
                lambda: f"{[each for left in remaining if (each := left()) is not None]} to go",
            )

    def shut_down(self) -> list[weakref.ref[Any]]:
        """Let all functions return, stop, and let go of everything."""
        for entry in self.entries:
            entry.held.let_go(None)
        self.coordinator.stop(TIMEOUT, cancel_waiting=True)
        totals = self.coordinator.stats().totals
        ended = totals.completed + totals.failed + totals.cancelled + totals.killed
        assert totals.submitted == len(self.entries) == ended
        assert totals.abandoned_now == 0
        assert all(entry.token.done() for entry in self.entries)
        self.drive(_gather_all([awaiter.task for awaiter in self.awaiters]))
        self.loop.close()
        assert self.complaints == []
        remaining: list[weakref.ref[Any]] = [weakref.ref(self.coordinator)]
        for entry in self.entries:
            remaining += [weakref.ref(entry.token), weakref.ref(entry.held)]
        # The queue as well: what has begun between being let go of and the stop lies in it.
        del self.coordinator, self.guards, self.loop, self.entered
        self.entries, self.awaiters = [], []
        return remaining


def _run(held: Held) -> object:
    return held()


async def _gather_all(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _poll(condition: Callable[[], bool], what: str | Callable[[], str]) -> None:
    """Wait for what has no event of its own."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        said = what if isinstance(what, str) else what()
        assert time.monotonic() < deadline, f"waited {TIMEOUT} s for {said}"
        time.sleep(0.0002)


def test_the_coordinator_does_what_the_model_does(logged: list[logging.LogRecord]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
