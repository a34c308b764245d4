"""The books on every token a stress test makes: what its function did, how the token ended, and
whether the two, and the coordinator's own counters, agree."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tokengate import Coordinator, FunctionExited, GuardedFunction, Token, TokenState
from tokengate import task_token_guard as guard

__all__ = ["TIMEOUT", "Books", "Call", "crowd", "wait_until"]

TIMEOUT = 20.0  # seconds after which what should have happened counts as hung

ENDED = tuple(state.name for state in TokenState if state.ended)
ABANDONED = (TokenState.CANCELLED, TokenState.EXPIRED, TokenState.KILLED)


class Call:
    """One call, and what became of it. `body` is what the function does."""

    __slots__ = ("__weakref__", "body", "outcome", "runs")

    def __init__(self, body: Callable[[], object]) -> None:
        self.body = body
        self.runs = 0
        self.outcome: object = None

    def run(self) -> object:
        self.runs += 1
        try:
            self.outcome = self.body()
        except BaseException as error:
            self.outcome = error
            raise
        return self.outcome


def run_call(call: Call) -> object:
    return call.run()


class Books:
    """Makes tokens on one coordinator, from any thread, and keeps an account of each.

    `check` is for afterwards, when nobody makes or ends tokens any more.
    """

    def __init__(self, coordinator: Coordinator, operation: str = "stress") -> None:
        self.coordinator = coordinator
        self.guard: GuardedFunction[[Call], object] = guard(operation)(run_call).options(
            coordinator=coordinator
        )
        self._made: list[tuple[Token[object], Call]] = []
        self._mapped: list[Call] = []
        # what was there before, because the counters never forget
        self._struck = self._counted()

    def __len__(self) -> int:
        return len(self._made) + len(self._mapped)

    def call(
        self, body: Callable[[], object], start: Callable[..., Token[object]] | None = None
    ) -> Token[object]:
        """A token whose function does `body()`. start: a group's, say, which makes the token."""
        call = Call(body)
        token = self.guard(call) if start is None else start(self.guard, call)
        self._made.append((token, call))
        return token

    def calls(self, bodies: Iterator[Callable[[], object]]) -> Iterator[Call]:
        """Items for `self.guard.map`, each written down when it is taken."""
        for body in bodies:
            call = Call(body)
            self._mapped.append(call)
            yield call

    def settle(self) -> None:
        """Block until all tokens have ended and all functions have returned. Off any loop."""
        asyncio.run(asyncio.wait_for(self.coordinator.drain(), TIMEOUT))
        totals = self.coordinator.stats
        wait_until(lambda: totals().totals.abandoned_now == 0, "abandoned functions to return")

    def check(self) -> Counter[str]:
        """Settle, compare everything, forget the tokens. Returns how many ended in which state."""
        self.settle()
        made, self._made = self._made, []
        mapped, self._mapped = self._mapped, []
        states: Counter[str] = Counter()
        abandoned = 0
        while made:
            token, call = made.pop()
            states[token.state.name] += 1
            _compare(token, call)
            abandoned += call.runs and token.state in ABANDONED
        assert all(call.runs <= 1 for call in mapped), "a function ran twice"
        runs = sum(call.runs for call in mapped)
        self._compare_counters(states, abandoned, len(mapped), runs)
        return states

    def _counted(self) -> Counter[str]:
        figures = self.coordinator.stats().operations.get(self.guard.operation)
        names = (*ENDED, "SUBMITTED", "ABANDONED_TOTAL")
        return Counter({name: getattr(figures, name.lower(), 0) for name in names})

    def _compare_counters(
        self, states: Counter[str], abandoned: int, mapped: int, mapped_runs: int
    ) -> None:
        stats = self.coordinator.stats()
        for figures in (stats.totals, *stats.operations.values()):
            ended = sum(getattr(figures, name.lower()) for name in ENDED)
            assert ended == figures.submitted, f"not each token has ended once: {figures}"
            left = (figures.waiting, figures.admitted, figures.executing, figures.abandoned_now)
            assert left == (0, 0, 0, 0), f"the gauges do not go back to nought: {figures}"
        before, self._struck = self._struck, self._counted()
        news = self._struck - before
        made = states.total()
        assert news["SUBMITTED"] == made + mapped, f"{news['SUBMITTED']}, not {made} + {mapped}"
        for name in ENDED:
            assert news[name] >= states[name], f"{name}: counted {news[name]}, seen {states[name]}"
        if not mapped:
            assert news["ABANDONED_TOTAL"] == abandoned
        # A function has run for each token that has a result, and for each that was abandoned.
        seen_runs = states["COMPLETED"] + states["FAILED"] + abandoned + mapped_runs
        counted_runs = news["COMPLETED"] + news["FAILED"] + news["ABANDONED_TOTAL"]
        assert counted_runs == seen_runs, f"{counted_runs} runs counted, {seen_runs} seen"


def _compare(token: Token[object], call: Call) -> None:
    started = token.timestamps[2] != 0
    assert token.done(), f"{token!r} was lost"
    assert call.runs == started, f"{token!r}: ran {call.runs} times, reports {started}"
    assert not token.abandoned, f"{token!r} claims to run on"
    state = token.state
    if state is TokenState.COMPLETED:
        assert call.runs
        assert token.result() is call.outcome, f"{token!r} has somebody else's result"
    elif state is TokenState.FAILED:
        assert call.runs
        error = token.exception()
        if isinstance(error, FunctionExited):
            error = error.__cause__
        assert error is call.outcome, f"{token!r} has somebody else's error"
    else:
        assert state in ABANDONED, f"{token!r} has not ended"


def wait_until(condition: Callable[[], object], what: str | Callable[[], str]) -> None:
    """Poll, off any loop, for what has no event of its own."""
    deadline = time.monotonic() + TIMEOUT
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {TIMEOUT} s for {what if isinstance(what, str) else what()}"
            )
        pause.wait(0.001)


def crowd(count: int, work: Callable[[int], Any]) -> None:
    """Run `work(0)` ... `work(count - 1)`, each in a thread of its own, all let loose at once.
    Raises the first error of any of them."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            start.wait(TIMEOUT)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,), name=f"crowd-{i}") for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT)
        assert not thread.is_alive(), f"{thread.name} hangs"
    if errors:
        raise errors[0]
