"""`lane="auto"`: calls that really move, and those that stay."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextlib import contextmanager

import lane_functions as work
import pytest

from tokengate import Executor, TokenKilled, TokenState, _core, task_token_guard

here_and_there = task_token_guard("auto.pid", lane="auto")(work.whose)
limited = task_token_guard("auto.limited", lane="auto", limit=1)(work.whose_limited)


@pytest.fixture
def away(lanes):
    """The coordinator; both operations have been called, and the first one moved by hand."""
    here_and_there(0).result()
    limited(0).result()
    if not _core.gil_enabled():
        pytest.skip("without a GIL nothing moves")
    with kept("auto.pid", lanes):
        lanes._seat_of("auto.pid").go("process")
        yield lanes


@contextmanager
def kept(name, coordinator):
    """Nothing is reviewed inside: the seat's notes say it is settled."""
    seat = coordinator._seat_of(name)
    notes = seat.notes
    before = notes.windows, notes.not_before
    notes.windows, notes.not_before = 10**9, float("inf")
    yield
    notes.windows, notes.not_before = before


def test_it_starts_on_threads(lanes):
    assert here_and_there(1).result() == (1, os.getpid())
    figures = lanes.stats().operations["auto.pid"]
    assert figures.lane == "thread"
    assert figures.lane_reason
    assert figures.lane_advice is None
    assert here_and_there.lane == "auto"
    assert here_and_there.options(lane="process").lane == "process"
    assert here_and_there.options(priority=1).lane == "auto"


def test_every_way_in_goes_where_the_operation_is(away):
    async def body():
        one = await here_and_there(1)
        many = await asyncio.gather(*[here_and_there(i) for i in range(50)])
        mapped = await here_and_there.map(range(200))
        with Executor(coordinator=away, lane="auto") as executor:
            executor.submit(work.plain_pid).result(20)
        return [one, *many, *mapped]

    found = asyncio.run(body())
    assert [value for value, _ in found] == [1, *range(50), *range(200)]
    assert os.getpid() not in {pid for _, pid in found}
    assert [pid for _, pid in here_and_there.map(range(5))] != [os.getpid()] * 5
    figures = away.stats().operations["auto.pid"]
    assert figures.lane == "process"
    assert figures.completed == 257


def test_fixed_views_stay_where_they_are(away):
    assert here_and_there.options(lane="thread")(1).result()[1] == os.getpid()
    assert here_and_there(1).result()[1] != os.getpid()


def test_a_call_with_a_key_of_its_own_stays_on_threads(away):
    keyed = here_and_there.options(key=lambda x: x)
    assert keyed(1).result()[1] == os.getpid()


def test_an_argument_that_cannot_be_pickled_brings_it_back(away):
    lock = threading.Lock()
    assert here_and_there(lock).result() == (lock, os.getpid())
    assert here_and_there(2).result() == (2, os.getpid())
    figures = away.stats().operations["auto.pid"]
    assert figures.lane == "thread"
    assert "lock" in figures.lane_reason
    assert figures.submitted == figures.completed + figures.failed


async def test_the_same_in_the_middle_of_a_map(away):
    lock = threading.Lock()
    items = [*range(100), lock, *range(100)]
    found = await here_and_there.map(items)
    assert [value for value, _ in found] == items
    assert found[0][1] != os.getpid()
    assert {pid for _, pid in found[100:]} == {os.getpid()}


def test_what_waits_on_threads_stays_there_and_both_are_counted(away):
    seat = away._seat_of("auto.pid")
    seat.go("thread")
    away.pause(here_and_there)
    old = [here_and_there(i) for i in range(5)]
    seat.go("process")
    new = [here_and_there(i) for i in range(5)]
    assert away.stats().operations["auto.pid"].waiting == 10  # the pause holds there, too
    away.resume(here_and_there)
    assert {token.result()[1] for token in old} == {os.getpid()}
    assert os.getpid() not in {token.result()[1] for token in new}


def test_kill_operation_and_discard_reach_both(away):
    seat = away._seat_of("auto.pid")
    away.pause(here_and_there)
    new = here_and_there(1)
    seat.go("thread")
    old = here_and_there(2)
    assert away.discard(here_and_there) == 2
    away.resume(here_and_there)
    for token in (old, new):
        with pytest.raises(TokenKilled):
            token.result()


def test_stopping_and_starting_again(away):
    away.stop()
    token = here_and_there(1)
    assert token.state is TokenState.KILLED
    away.start()
    assert here_and_there(1).result()[1] != os.getpid()


def test_an_executor_moves_as_well(lanes):
    with Executor(coordinator=lanes, lane="auto") as executor:
        assert executor.submit(work.plain_pid).result() == os.getpid()
        if not _core.gil_enabled():
            return
        (name,) = [each for each in lanes.stats().operations if each.endswith("plain_pid")]
        with kept(name, lanes):
            lanes._seat_of(name).go("process")
            assert executor.submit(work.plain_pid).result() != os.getpid()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking with threads warns there")
def test_a_forked_child_starts_on_threads(away):
    child = os.fork()
    if child == 0:
        try:
            here = here_and_there(1).result(20)[1] == os.getpid()
            os._exit(0 if here else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


# -- measured ------------------------------------------------------------------------------------

burning = task_token_guard("auto.burn", lane="auto")(work.burn_a_little)
napping = task_token_guard("auto.nap", lane="auto")(work.nap_a_little)
hashing = task_token_guard("auto.hash", lane="auto")(work.hash_much)
by_hand = task_token_guard("auto.advised")(work.burn_by_hand)


def looks(coordinator, name):
    return coordinator._measured(name)[1] if coordinator._knows(name) else 0


async def until_moved(coordinator, name, burst):
    end = time.monotonic() + 120
    while (found := coordinator.stats().operations.get(name)) is None or found.lane == "thread":
        assert time.monotonic() < end, f"it stayed: {found}"
        await asyncio.gather(*burst())


@pytest.mark.skipif(not _core.gil_enabled(), reason="without a GIL nothing moves")
async def test_pure_python_moves_and_sleep_does_not(lanes, monkeypatch):
    if lanes._cpus < 2:
        pytest.skip("with one CPU nothing moves")

    def burst():
        return [
            *[burning(500) for _ in range(100)],
            *[by_hand(500) for _ in range(20)],
            *[napping() for _ in range(40)],
        ]

    await until_moved(lanes, "auto.burn", burst)
    assert "GIL" in lanes.stats().operations["auto.burn"].lane_reason

    def told():
        found = lanes.stats().operations
        nap, advised = found["auto.nap"], found["auto.advised"]
        assert nap.lane == advised.lane == "thread"
        return "waits" in nap.lane_reason and "lane='process'" in (advised.lane_advice or "")

    end = time.monotonic() + 120
    while not told():
        assert time.monotonic() < end, lanes.stats().operations
        await asyncio.gather(*burst(), *[by_hand(500) for _ in range(200)])
    assert lanes.stats().operations["auto.advised"].lane_reason == "the default"


@pytest.mark.skipif(not _core.gil_enabled(), reason="there is no GIL to be held")
async def test_who_holds_the_gil_is_seen(lanes):
    end = time.monotonic() + 120
    while min(looks(lanes, "auto.hash"), looks(lanes, "auto.advised")) < 40:
        assert time.monotonic() < end
        await asyncio.gather(
            *[hashing(4_000_000) for _ in range(20)], *[by_hand(5_000) for _ in range(20)]
        )
    _, found, held, _ = lanes._measured("auto.hash")
    assert held < 0.5 * found  # it computes without
    runs, found, held, _ = lanes._measured("auto.advised")
    assert held * sum(wall for wall, _ in runs) / found > 0.4 * sum(cpu for _, cpu in runs)


async def test_a_limit_holds(lanes):
    for _ in range(20):
        await asyncio.gather(*[limited(i) for i in range(50)])
    assert work.most_at_once() == 1
    assert lanes.stats().operations["auto.limited"].lane == "thread"


def test_inside_a_worker_it_stays_there(lanes):
    worker, inside = work.calls_auto().result()
    assert worker == inside != os.getpid()


def test_single_calls_stay_and_say_why(lanes):
    for _ in range(200):
        here_and_there(1).result()
    figures = lanes.stats().operations["auto.pid"]
    assert figures.lane == "thread"
    assert ("no GIL" in figures.lane_reason) == (not _core.gil_enabled())
    assert figures.lane_reason != "not measured yet"
