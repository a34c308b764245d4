"""The adaptive limit of the thread lane, by what a user sees: who gets in, and what is reported."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic, process_time, thread_time
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, task_token_guard
from tokengate._core import gil_enabled
from tokengate.stats import LaneStats

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate, RunPython, Until

TIMEOUT = 20.0


def lane(coordinator: Coordinator) -> LaneStats:
    return coordinator.stats().lanes["thread"]


def keepers(coordinator: Coordinator) -> list[threading.Thread]:
    name = f"{coordinator.name}-keeper"
    return [thread for thread in threading.enumerate() if thread.name == name]


def eventually(condition: Callable[[], object]) -> None:
    """Off a loop: look until it holds; fails the test if it never does."""
    until = monotonic() + TIMEOUT
    pause = threading.Event()
    while not condition():
        assert monotonic() < until, "it never happened"
        pause.wait(0.005)


def burn(stop: threading.Event) -> int:
    """Python code that never lets go of the GIL by itself."""
    count = 0
    while not stop.is_set():
        count += 1
    return count


# -- who gets in -------------------------------------------------------------------------------


async def test_it_grows_while_functions_block(new_coordinator: NewCoordinator, gate: Gate) -> None:
    coordinator = new_coordinator(thread_workers=16)
    tokens = [coordinator.submit(gate) for _ in range(12)]
    await gate.entered(12)
    assert lane(coordinator).limit >= 12
    gate.open()
    await asyncio.gather(*tokens)


def test_it_grows_without_a_loop(new_coordinator: NewCoordinator, gate: Gate) -> None:
    coordinator = new_coordinator(thread_workers=16)
    tokens = [coordinator.submit(gate) for _ in range(12)]
    gate.wait_entered(12)
    gate.open()
    for token in tokens:
        token.result(TIMEOUT)


async def test_it_grows_beside_a_busy_loop(
    new_coordinator: NewCoordinator, gate: Gate, until: Until
) -> None:
    """The lag that the loop's own callbacks make does not keep tokens that wait out."""
    coordinator = new_coordinator(thread_workers=16)
    tokens = [coordinator.submit(gate) for _ in range(12)]

    def busy() -> bool:
        end = monotonic() + 0.03
        while monotonic() < end:
            pass
        return gate.inside == 12

    begun, used = monotonic(), thread_time()
    await until(busy)
    stats = coordinator.stats()
    # what the machine let this thread have: on a crowded one that is not much
    share = (thread_time() - used) / (monotonic() - begun)
    assert stats.loop_busy > share / 2
    gate.open()
    await asyncio.gather(*tokens)


@pytest.mark.skipif(not gil_enabled(), reason="without a GIL there is nothing to wait for")
async def test_python_code_gets_one_place(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator(thread_workers=16)
    stop = threading.Event()
    begun, used = monotonic(), process_time()
    tokens = [coordinator.submit(burn, stop) for _ in range(8)]
    async with asyncio.timeout(TIMEOUT):
        for _ in range(20):
            await asyncio.sleep(0.01)  # the loop looks on: a lag that nobody waits for is none
    executing = coordinator.stats().totals.executing
    share = (process_time() - used) / (monotonic() - begun)
    stop.set()
    await asyncio.gather(*tokens)
    # Functions that get no CPU look like functions that wait: where others use the machine so much
    # that these do not even get the one that the GIL leaves them, more of them may be let in.
    assert executing <= 4 or share < 0.9


async def test_a_fixed_number_of_workers(new_coordinator: NewCoordinator, gate: Gate) -> None:
    coordinator = new_coordinator(thread_workers=4, loop_lag_target=None)
    assert lane(coordinator).limit == 4
    tokens = [coordinator.submit(gate) for _ in range(12)]
    await gate.entered(2)
    assert lane(coordinator).limit == 4
    assert not keepers(coordinator)
    gate.open()
    await asyncio.gather(*tokens)
    assert lane(coordinator).limit == 4
    coordinator.resize("thread", 6)
    assert lane(coordinator).limit == 6


async def test_those_past_the_limit_do_not_keep_the_others_out(
    new_coordinator: NewCoordinator, gate: Gate
) -> None:
    """Two functions that block for ever, a limit that was lowered below them and raised again."""
    coordinator = new_coordinator(thread_workers=8)
    tokens = [coordinator.submit(gate) for _ in range(2)]
    await gate.entered(2)
    coordinator.resize("thread", 1)
    coordinator.resize("thread", 8)
    tokens += [coordinator.submit(gate) for _ in range(3)]
    await gate.entered(3)
    gate.open()
    await asyncio.gather(*tokens)


async def test_resize_sets_the_most(new_coordinator: NewCoordinator, gate: Gate) -> None:
    coordinator = new_coordinator(thread_workers=16)
    tokens = [coordinator.submit(gate) for _ in range(12)]
    await gate.entered(12)
    coordinator.resize("thread", 3)
    assert lane(coordinator).limit <= 3
    assert lane(coordinator).last_reason == "resized"
    gate.open()
    await asyncio.gather(*tokens)


def test_another_operation_is_let_in_past_a_hog(new_coordinator: NewCoordinator) -> None:
    """However long one operation holds every place, a token of another runs."""
    coordinator = new_coordinator(thread_workers=64)  # where the limit has not reached that
    stop = threading.Event()

    @task_token_guard("light")
    def light() -> int:
        return 1

    hogs = [coordinator.submit(burn, stop) for _ in range(8)]
    eventually(lambda: coordinator.stats().totals.executing)
    tokens = [coordinator.submit(light) for _ in range(3)]
    try:
        assert [token.result(TIMEOUT) for token in tokens] == [1, 1, 1]
        assert not any(hog.done() for hog in hogs)
    finally:
        stop.set()
    for hog in hogs:
        hog.result(TIMEOUT)


def test_a_loop_that_does_not_run_stops_nobody(
    new_coordinator: NewCoordinator, new_gate: NewGate
) -> None:
    coordinator = new_coordinator(thread_workers=16)
    first, second = new_gate(), new_gate()
    loop = asyncio.new_event_loop()
    try:

        async def meet() -> None:
            tokens = [coordinator.submit(first) for _ in range(4)]
            await first.entered(4)
            first.open()
            await asyncio.gather(*tokens)

        loop.run_until_complete(meet())
        tokens = [coordinator.submit(second) for _ in range(12)]
        second.wait_entered(12)
        second.open()
        for token in tokens:
            token.result(TIMEOUT)
    finally:
        loop.close()


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, -0.01, float("nan"), float("inf"), 0.0])
def test_a_target_that_cannot_be(bad: float) -> None:
    with pytest.raises(ValueError, match=r"loop_lag_target=.*positive, finite") as caught:
        Coordinator(loop_lag_target=bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("bad", ["0.01", True, [], 1j])
def test_a_target_of_the_wrong_type(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"loop_lag_target=.*positive, finite number of seconds"):
        Coordinator(loop_lag_target=bad)


@pytest.mark.parametrize("target", [1e-12, 0.001, 1, 1e300])
def test_targets_that_can_be(new_coordinator: NewCoordinator, target: float) -> None:
    coordinator = new_coordinator(loop_lag_target=target)
    tokens = [coordinator.submit(int, "7") for _ in range(50)]
    assert {token.result(TIMEOUT) for token in tokens} == {7}


# -- what is reported --------------------------------------------------------------------------


async def test_the_limit_and_why(
    new_coordinator: NewCoordinator, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = new_coordinator(thread_workers=16)
    before = lane(coordinator)
    assert before.last_reason == "initial limit"
    assert before.cuts == 0
    with caplog.at_level(logging.DEBUG, "tokengate"):
        tokens = [coordinator.submit(gate) for _ in range(12)]
        await gate.entered(12)
        after = lane(coordinator)
    gate.open()
    await asyncio.gather(*tokens)
    assert before.limit < after.limit <= 16
    assert after.last_reason.startswith("raised")
    told = [record.getMessage() for record in caplog.records if "active limit" in record.msg]
    assert told
    assert f"{before.limit} -> " in told[0]
    assert f"-> {after.limit}, " in told[-1]
    plain = coordinator.stats().as_dict()
    assert plain["lanes"]["thread"]["cuts"] == after.cuts
    assert 0 <= plain["loop_busy"] <= 1


async def test_the_log_is_silent_unless_asked(
    new_coordinator: NewCoordinator, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tokengate"):
        coordinator = new_coordinator(thread_workers=8)
        tokens = [coordinator.submit(gate) for _ in range(6)]
        await gate.entered(6)
        lane(coordinator)
    gate.open()
    await asyncio.gather(*tokens)
    assert not caplog.records


# -- the keeper's thread -----------------------------------------------------------------------


async def test_none_before_it_is_needed(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator()
    assert await coordinator.submit(int, "1") == 1
    assert len(keepers(coordinator)) <= 1
    fixed = new_coordinator(loop_lag_target=None)
    await asyncio.gather(*[fixed.submit(int, "1") for _ in range(100)])
    assert not keepers(fixed)


def test_it_ends_with_stop_and_comes_again(
    new_coordinator: NewCoordinator, new_gate: NewGate
) -> None:
    coordinator = new_coordinator(thread_workers=8)
    for _ in range(3):
        gate = new_gate()
        tokens = [coordinator.submit(gate) for _ in range(6)]
        gate.wait_entered(6)
        if gil_enabled():  # without, two or more CPUs may do without one
            eventually(lambda: len(keepers(coordinator)) == 1)  # its thread names itself
        assert all(keeper.daemon for keeper in keepers(coordinator))
        gate.open()
        coordinator.stop()
        assert not keepers(coordinator)
        assert all(token.done() for token in tokens)
        coordinator.start()


def test_it_ends_with_a_coordinator_nobody_holds() -> None:
    coordinator = Coordinator(thread_workers=4, name="dropped")
    tokens = [coordinator.submit(int, "3") for _ in range(200)]
    assert {token.result(TIMEOUT) for token in tokens} == {3}
    gone = weakref.ref(coordinator)
    del coordinator, tokens
    gc.collect()
    eventually(lambda: gone() is None)
    eventually(lambda: not any(t.name.startswith("dropped-") for t in threading.enumerate()))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_it_sleeps(run_python: RunPython) -> None:
    """Once what it learnt has been forgotten, not one wake-up more."""
    said = run_python(
        """
import threading, tokengate
from pathlib import Path
with tokengate.Coordinator(thread_workers=8, name="c") as c:
    inside, leave = threading.Semaphore(0), threading.Event()
    def hold():
        inside.release()
        leave.wait(20)
    tokens = [c.submit(hold) for _ in range(6)]
    for _ in tokens:
        assert inside.acquire(timeout=20)
    keeper, = [t for t in threading.enumerate() if t.name == "c-keeper"]
    leave.set()
    for token in tokens:
        token.result(20)
    pause = threading.Event()
    while not c.stats().lanes["thread"].last_reason.startswith("idle"):
        pause.wait(0.01)
    def switches():
        text = Path(f"/proc/self/task/{keeper.native_id or keeper.ident}/status").read_text()
        return [line for line in text.splitlines() if "ctxt_switches" in line]
    ids = {t.name for t in threading.enumerate()}
    tasks = {p.name: (p / "status").read_text() for p in Path("/proc/self/task").iterdir()}
    pause.wait(0.2)
    before = {p.name: [l for l in (p / "status").read_text().splitlines() if l.startswith("vol")]
              for p in Path("/proc/self/task").iterdir() if p.name != str(threading.get_native_id())}
    pause.wait(1.0)
    after = {p.name: [l for l in (p / "status").read_text().splitlines() if l.startswith("vol")]
             for p in Path("/proc/self/task").iterdir() if p.name != str(threading.get_native_id())}
    print(before == after, len(before))
"""
    )
    same, threads = said.split()
    assert same == "True"
    assert int(threads) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_one_of_its_own(run_python: RunPython) -> None:
    said = run_python(
        """
import os, threading, tokengate
c = tokengate.Coordinator(thread_workers=8, name="c")
def held(count):
    inside, leave = threading.Semaphore(0), threading.Event()
    def hold():
        inside.release()
        leave.wait(20)
    tokens = [c.submit(hold) for _ in range(count)]
    for _ in tokens:
        assert inside.acquire(timeout=20)
    assert "c-keeper" in {t.name for t in threading.enumerate()}
    leave.set()
    for token in tokens:
        token.result(20)
held(6)
child = os.fork()
if child == 0:
    assert "c-keeper" not in {t.name for t in threading.enumerate()}
    held(6)
    c.stop()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
held(6)
c.stop()
print("ended")
"""
    )
    assert said == "ended\n"
