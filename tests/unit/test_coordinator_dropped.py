"""A coordinator nobody holds any more ends its threads, after the tokens it still has."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token, use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Gate

TIMEOUT = 20.0


@pytest.fixture
def ended() -> Iterator[None]:
    """All worker threads the test has started end by themselves once the test has let go."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    pause = threading.Event()
    deadline = monotonic() + TIMEOUT
    while left := set(threading.enumerate()) - before:  # C code started them: no join
        assert monotonic() < deadline, left
        pause.wait(0.001)


pytestmark = pytest.mark.usefixtures("ended", "logged")


def dropped(**settings: Any) -> Coordinator:
    """One whose only reference is the caller's; its threads are watched by `ended`."""
    return Coordinator(**settings)


def add(a: int, b: int = 1) -> int:
    return a + b


def test_never_used() -> None:
    gone = weakref.ref(dropped())
    gc.collect()
    assert gone() is None


def test_idle() -> None:
    coordinator = dropped(thread_workers=4)
    together = threading.Barrier(4)
    tokens = [coordinator.submit(together.wait, TIMEOUT) for _ in range(4)]
    assert sorted(token.result(TIMEOUT) for token in tokens) == [0, 1, 2, 3]
    gone = weakref.ref(coordinator)
    del coordinator, tokens
    gc.collect()
    assert gone() is None


def test_stopped() -> None:
    coordinator = dropped()
    assert coordinator.submit(add, 1).result(TIMEOUT) == 2
    coordinator.stop()
    gone = weakref.ref(coordinator)
    del coordinator
    gc.collect()
    assert gone() is None


def test_its_tokens_still_run(gate: Gate) -> None:
    def submit() -> list[Token[int]]:
        coordinator = dropped(thread_workers=1)
        coordinator.submit(gate)
        return [coordinator.submit(add, i) for i in range(1_000)]

    tokens = submit()
    gate.wait_entered()
    gc.collect()
    gate.open()
    assert [token.result(TIMEOUT) for token in tokens] == list(range(1, 1_001))


def test_nobody_holds_its_tokens_either(gate: Gate) -> None:
    ran = threading.Semaphore(0)

    def submit() -> weakref.ref[Coordinator]:
        coordinator = dropped(thread_workers=1)
        coordinator.submit(gate)
        for _ in range(100):
            coordinator.submit(ran.release)
        return weakref.ref(coordinator)

    gone = submit()
    gate.wait_entered()
    gc.collect()
    assert gone() is not None
    gate.open()
    for _ in range(100):
        assert ran.acquire(timeout=TIMEOUT)


async def test_while_a_loop_awaits(gate: Gate) -> None:
    def submit() -> list[Token[int]]:
        coordinator = dropped(thread_workers=1)
        coordinator.submit(gate)
        return [coordinator.submit(add, i) for i in range(100)]

    awaiting = asyncio.gather(*submit())
    gate.wait_entered()
    gc.collect()
    gate.open()
    assert await asyncio.wait_for(awaiting, TIMEOUT) == list(range(1, 101))


def test_by_its_own_worker() -> None:
    """The last reference is a function's argument: it ends the pool it runs in."""

    def last(coordinator: Coordinator, reached: threading.Event) -> None:
        assert coordinator.submit(add, 1).result(TIMEOUT) == 2
        reached.set()

    reached = threading.Event()

    def submit() -> None:
        coordinator = dropped(thread_workers=1)
        coordinator.submit(last, coordinator, reached)

    submit()
    assert reached.wait(TIMEOUT)


def test_in_a_reference_cycle() -> None:
    def make() -> weakref.ref[Coordinator]:
        coordinator = dropped(thread_workers=1)
        cycle: dict[str, Any] = {"coordinator": coordinator}
        cycle["token"] = coordinator.submit(lambda: cycle)
        assert cycle["token"].result(TIMEOUT) is cycle
        return weakref.ref(coordinator)

    gone = make()
    pause = threading.Event()
    deadline = monotonic() + TIMEOUT
    while gone() is not None:  # its worker may still be about to let go of the token
        assert monotonic() < deadline
        gc.collect()
        pause.wait(0.001)


def test_while_in_use_by_the_block_that_drops_it() -> None:
    coordinator = dropped(thread_workers=1)
    with use(coordinator):
        token = coordinator.submit(add, 1)
        del coordinator
        gc.collect()
        assert token.result(TIMEOUT) == 2


def test_one_with_a_cancelled_function_that_runs_on(gate: Gate) -> None:
    coordinator = dropped(thread_workers=1)
    token = coordinator.submit(gate)
    gate.wait_entered()
    assert token.cancel()
    del coordinator, token
    gc.collect()
    gate.open()
