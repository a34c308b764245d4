"""Tokens and plain threads: blocking on them, from many threads, and the workers themselves."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, TokenKilled, TokenState, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

TIMEOUT = 20.0


@task_token_guard
def add(a: int, b: int = 1) -> int:
    return a + b


@task_token_guard
def fail(message: str) -> None:
    raise LookupError(message)


# -- result() and exception() --------------------------------------------------------------------


def test_result_blocks_until_the_function_returns(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, "value")
    with ThreadPoolExecutor(1) as threads:
        blocked = threads.submit(token.result)
        gate.wait_entered()
        assert not blocked.done()
        gate.open()
        assert blocked.result(TIMEOUT) == "value"
    assert token.result() == "value"
    assert token.result(timeout=0) == "value"


def test_result_raises_what_the_function_raised(coordinator: Coordinator) -> None:
    token = fail("no such thing")
    for _ in range(2):
        with pytest.raises(LookupError, match="no such thing") as caught:
            token.result(TIMEOUT)
        assert [entry.name for entry in caught.traceback][-1] == "fail"
    assert isinstance(token.exception(), LookupError)
    assert add(1).exception(TIMEOUT) is None


@pytest.mark.parametrize("timeout", [0, 0.05, -1])
@pytest.mark.parametrize("method", ["result", "exception"])
def test_the_timeout_passes_and_the_token_goes_on(
    single: Coordinator, gate: Gate, timeout: float, method: str
) -> None:
    executing, waiting = single.submit(gate, "first"), single.submit(add, 1)
    gate.wait_entered()
    for token in (executing, waiting):
        begun = monotonic()
        with pytest.raises(TimeoutError, match="has not ended") as caught:
            getattr(token, method)(timeout)
        assert monotonic() - begun >= max(0, timeout)
        assert not isinstance(caught.value, tokengate.TokenExpired)  # the token itself has time
    gate.open()
    assert (executing.result(TIMEOUT), waiting.result(TIMEOUT)) == ("first", 2)


def test_many_threads_block_on_one_token(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, "value")
    gate.wait_entered()
    with ThreadPoolExecutor(16) as threads:
        patient = [threads.submit(token.result) for _ in range(8)]
        impatient = [threads.submit(token.result, 0.01) for _ in range(8)]
        for future in impatient:
            with pytest.raises(TimeoutError):
                future.result(TIMEOUT)
        gate.open()
        assert [future.result(TIMEOUT) for future in patient] == ["value"] * 8


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda token: token.cancel("enough"), concurrent.futures.CancelledError),
        (lambda token: token.kill("enough"), TokenKilled),
    ],
    ids=["cancel", "kill"],
)
def test_ended_from_another_thread(
    single: Coordinator, gate: Gate, end: Any, error: type[BaseException]
) -> None:
    executing, waiting = single.submit(gate), single.submit(add, 1)
    gate.wait_entered()
    with ThreadPoolExecutor(2) as threads:
        for token in (waiting, executing):
            blocked = threads.submit(token.result)
            assert end(token)
            with pytest.raises(error, match="enough"):
                blocked.result(TIMEOUT)
            assert not end(token)
    assert executing.abandoned
    gate.open()


async def test_result_on_a_running_loop_never_blocks(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate, "value")
    for ask in (token.result, token.exception, lambda: token.result(5), lambda: token.result(0)):
        with pytest.raises(asyncio.InvalidStateError, match="await"):
            ask()
    gate.open()
    assert await token == "value"
    assert token.result() == "value"
    assert token.result(timeout=5) == "value"
    assert token.exception() is None


async def test_result_in_a_thread_beside_the_loop(coordinator: Coordinator) -> None:
    assert await asyncio.to_thread(add(1).result, TIMEOUT) == 2


def test_gather_and_as_completed_off_any_loop(coordinator: Coordinator) -> None:
    tokens = [add(i) for i in range(1_000)]
    assert tokengate.gather(*tokens).result(TIMEOUT) == list(range(1, 1_001))
    ended = list(tokengate.as_completed([add(i) for i in range(1_000)]))
    assert sorted(token.result() for token in ended) == list(range(1, 1_001))


def test_waiting_for_several_has_a_timeout(single: Coordinator, gate: Gate) -> None:
    tokens = [single.submit(gate, i) for i in range(3)]
    gate.wait_entered()
    with pytest.raises(TimeoutError, match="3 of 3"):
        tokengate.gather(*tokens).result(0.05)
    gate.open()
    assert tokengate.gather(*tokens).result(TIMEOUT) == [0, 1, 2]


# -- submitting ----------------------------------------------------------------------------------


def test_many_threads_submit_and_block(coordinator: Coordinator) -> None:
    together = threading.Barrier(8)

    def caller(base: int) -> list[int]:
        together.wait(TIMEOUT)
        with use(coordinator):
            one_by_one = [add(base + i).result(TIMEOUT) for i in range(100)]
            at_once = [token.result(TIMEOUT) for token in [add(base + i) for i in range(400)]]
            return [*one_by_one, *at_once, *add.map(range(base, base + 400))]

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(caller, [1_000 * i for i in range(8)]))
    for i, result in enumerate(results):
        base = 1_000 * i + 1
        assert result == [
            *range(base, base + 100),
            *range(base, base + 400),
            *range(base, base + 400),
        ]
    totals = coordinator.stats().totals
    assert totals.completed == totals.submitted == 8 * 900


def test_ids_are_unique_across_threads(coordinator: Coordinator) -> None:
    def caller(_: int) -> list[int]:
        with use(coordinator):
            return [add(i).id for i in range(500)]

    with ThreadPoolExecutor(4) as threads:
        ids = [each for ids in threads.map(caller, range(4)) for each in ids]
    assert sorted(ids) == list(range(1, 2_001))
    asyncio.run(coordinator.drain())


def test_the_submitting_thread_may_end_first(single: Coordinator, gate: Gate) -> None:
    tokens: list[tokengate.Token[int]] = []
    single.submit(gate)
    thread = threading.Thread(target=lambda: tokens.append(single.submit(add, 1)))
    thread.start()
    thread.join()
    gate.open()
    assert tokens[0].result(TIMEOUT) == 2


# -- the workers ---------------------------------------------------------------------------------


def worker_threads(coordinator: Coordinator) -> list[threading.Thread]:
    """Those that run tokens."""
    name = re.compile(re.escape(coordinator.name) + r"-\d+")
    return [thread for thread in threading.enumerate() if name.fullmatch(thread.name)]


def test_workers_start_as_work_comes(coordinator: Coordinator, gate: Gate) -> None:
    assert worker_threads(coordinator) == []
    tokens = []
    for count in (1, 2, 3, 4, 4, 4):
        tokens.append(coordinator.submit(gate))
        if count > len(worker_threads(coordinator)):
            gate.wait_entered()
        assert len(worker_threads(coordinator)) <= count
    assert len(worker_threads(coordinator)) == 4
    gate.open()
    for token in tokens:
        token.result(TIMEOUT)


def test_a_single_worker_runs_everything_in_order(single: Coordinator) -> None:
    idents: set[int] = set()
    order: list[int] = []

    def note(i: int) -> None:
        idents.add(threading.get_ident())
        order.append(i)

    for token in [single.submit(note, i) for i in range(1_000)]:
        token.result(TIMEOUT)
    assert order == list(range(1_000))
    assert len(idents) == 1
    assert idents.isdisjoint({threading.get_ident()})


def test_workers_have_names_of_their_own(coordinator: Coordinator, gate: Gate) -> None:
    tokens = [coordinator.submit(gate) for _ in range(4)]
    gate.wait_entered(4)
    workers = worker_threads(coordinator)
    assert len({worker.name for worker in workers}) == len(workers) == 4
    gate.open()
    for token in tokens:
        token.result(TIMEOUT)


def test_no_more_workers_than_there_is_work(new_coordinator: NewCoordinator, gate: Gate) -> None:
    coordinator = new_coordinator(thread_workers=64)
    tokens = [coordinator.submit(gate) for _ in range(3)]
    gate.wait_entered(3)
    assert len(worker_threads(coordinator)) == 3
    gate.open()
    for token in tokens:
        token.result(TIMEOUT)


def test_a_stuck_call_is_replaced_when_it_is_given_up(single: Coordinator, gate: Gate) -> None:
    stuck = single.submit(gate)
    behind = single.submit(add, 1)
    gate.wait_entered()
    assert not behind.done()
    stuck.cancel()
    assert behind.result(TIMEOUT) == 2
    assert single.stats().totals.abandoned_now == 1
    gate.open()


def test_a_worker_blocking_on_a_token_runs_it_itself(single: Coordinator) -> None:
    @task_token_guard
    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        first, second = fibonacci(n - 1), fibonacci(n - 2)
        return first.result(TIMEOUT) + second.result(TIMEOUT)

    assert fibonacci(10).result(TIMEOUT) == 55


@pytest.fixture
def no_more_threads() -> Iterator[Callable[[bool], None]]:
    """Called with True, the system refuses every further thread; with False it does no longer."""
    usual = threading.stack_size()

    def refuse(on: bool) -> None:
        threading.stack_size(1 << 46 if on else usual)  # more than there are addresses for

    yield refuse
    refuse(False)


@pytest.mark.skipif(sys.maxsize < 1 << 46, reason="needs 64-bit addresses")
def test_the_system_refuses_a_thread(
    single: Coordinator, no_more_threads: Callable[[bool], None]
) -> None:
    no_more_threads(True)
    tokens = [add(i) for i in range(10)]
    for token in tokens:
        with pytest.raises(TokenKilled, match="thread"):
            token.result(TIMEOUT)
    no_more_threads(False)
    assert add(1).result(TIMEOUT) == 2  # and with the next call it is asked again


@pytest.mark.skipif(sys.maxsize < 1 << 46, reason="needs 64-bit addresses")
def test_the_system_refuses_a_further_thread(
    coordinator: Coordinator, gate: Gate, no_more_threads: Callable[[bool], None]
) -> None:
    """One worker is enough to run everything."""
    coordinator.submit(gate)
    gate.wait_entered()
    no_more_threads(True)
    tokens = [add(i) for i in range(10)]
    assert {token.state for token in tokens} <= {TokenState.WAITING, TokenState.ADMITTED}
    gate.open()
    assert [token.result(TIMEOUT) for token in tokens] == list(range(1, 11))


def test_tracing_and_profiling_reach_the_workers(new_coordinator: NewCoordinator) -> None:
    """Debuggers and coverage tools hook threads through `threading.settrace`."""
    seen: set[str] = set()

    def profile(frame: Any, event: str, _: Any) -> None:
        seen.add(frame.f_code.co_name)

    threading.setprofile(profile)
    try:
        coordinator = new_coordinator()
        assert coordinator.submit(add.__wrapped__, 1).result(TIMEOUT) == 2
        coordinator.stop()
    finally:
        threading.setprofile(None)
    assert "add" in seen


def test_a_tiny_switch_interval(coordinator: Coordinator) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert list(add.map(range(2_000))) == list(range(1, 2_001))
    finally:
        sys.setswitchinterval(interval)


# -- interrupted while a worker is started -------------------------------------------------------


class Interrupt(BaseException):
    pass


def test_an_interrupt_before_the_thread_exists_wedges_nothing(
    single: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", usual)
        raise Interrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    # where workers are started in another way there is nothing to interrupt
    with contextlib.suppress(Interrupt):
        add(1)
    assert add(2).result(TIMEOUT) == 3
    single.stop()
    assert single.stats().totals.waiting == 0


def test_they_end_without_a_lock_of_threadings(new_coordinator: NewCoordinator) -> None:
    """In a forked child, and during the exit, nobody may be left to give it back."""
    coordinator = new_coordinator()
    assert coordinator.submit(int).result(TIMEOUT) == 0
    mine = {each for each in threading.enumerate() if each.name.startswith(f"{coordinator.name}-")}
    assert mine
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        coordinator.stop(TIMEOUT)
        assert coordinator.stats().lanes["thread"].workers == 0
    assert not mine & set(threading.enumerate())
