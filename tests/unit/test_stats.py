"""`Coordinator.stats()`: every figure is true, at every moment."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Stats, Token, TokenState, current_token, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate, Until


def fail() -> None:
    raise LookupError


def gauges(coordinator: Coordinator) -> tuple[int, int, int]:
    totals = coordinator.stats().totals
    return totals.waiting, totals.admitted, totals.executing


def states(tokens: list[Token[Any]]) -> tuple[int, int, int]:
    """The same three figures, counted from the tokens themselves."""
    found = [token.state for token in tokens]
    return (
        found.count(TokenState.WAITING),
        found.count(TokenState.ADMITTED),
        found.count(TokenState.EXECUTING),
    )


def test_of_a_coordinator_nobody_has_used(coordinator: Coordinator) -> None:
    stats = coordinator.stats()
    assert isinstance(stats, Stats)
    assert stats.operations == {}
    assert set(dataclasses.asdict(stats.totals).values()) == {0}
    lane = stats.lanes["thread"]
    assert (lane.workers, lane.active, lane.queue_depth, lane.wakes) == (0, 0, 0, 0)
    assert (lane.max_workers, lane.cuts, lane.last_reason) == (4, 0, "initial limit")
    assert 1 <= lane.limit <= 4
    assert 0 <= stats.loop_busy <= 1
    assert lane.cpu_seconds == 0


async def test_the_gauges_agree_with_the_states_of_the_tokens(
    single: Coordinator, gate: Gate
) -> None:
    tokens: list[Token[Any]] = [single.submit(gate)]
    await gate.entered()
    tokens += [single.submit(int, i) for i in range(100)]
    assert gauges(single) == states(tokens)
    assert sum(gauges(single)) == 101
    assert single.stats().lanes["thread"].queue_depth == 100
    for token in tokens[1:6]:  # some of them admitted, the others waiting
        token.cancel()
    assert gauges(single) == states(tokens)
    assert sum(gauges(single)) == 96
    assert single.stats().lanes["thread"].queue_depth == 95
    gate.open()
    await asyncio.gather(*tokens, return_exceptions=True)
    await single.aclose()
    assert gauges(single) == states(tokens) == (0, 0, 0)
    assert single.stats().lanes["thread"].queue_depth == 0


async def test_ends_are_counted_by_how_they_came(single: Coordinator, gate: Gate) -> None:
    held = single.submit(gate)
    await gate.entered()
    tokens = [single.submit(fail) for _ in range(2)] + [single.submit(fail) for _ in range(5)]
    for token in tokens[2:5]:
        token.cancel()
    for token in tokens[5:]:
        token.kill("by order")
    gate.open()
    await asyncio.gather(held, *tokens, return_exceptions=True)
    await single.aclose()
    refused = single.submit(fail)
    assert refused.state is TokenState.KILLED
    assert refused.exception() is not None
    operations = single.stats().operations
    assert set(operations) == {"tests.gate", f"{__name__}.fail"}
    figures = operations[f"{__name__}.fail"]
    assert (figures.submitted, figures.completed, figures.failed) == (8, 0, 2)
    assert (figures.cancelled, figures.killed, figures.expired) == (3, 3, 0)
    assert figures.rejected == 1
    assert (figures.abandoned_now, figures.abandoned_total) == (0, 0)
    assert operations["tests.gate"].completed == 1


async def test_every_submitted_token_is_somewhere(coordinator: Coordinator) -> None:
    # Looked at from another thread, without pause, while tokens come and go.
    stop = threading.Event()
    wrong: list[Any] = []

    def watch() -> None:
        last = 0
        while not stop.is_set():
            t = coordinator.stats().totals
            ended = t.completed + t.failed + t.cancelled + t.killed
            if min(dataclasses.astuple(t)) < 0 or ended > t.submitted or ended < last:
                wrong.append(t)
            last = ended

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):
            tokens = [coordinator.submit(int) for _ in range(500)]
            for token in tokens[::7]:
                token.cancel()
            await asyncio.gather(*tokens, return_exceptions=True)
    finally:
        stop.set()
        watcher.join(20)
    assert wrong == []
    totals = coordinator.stats().totals
    assert totals.submitted == totals.completed + totals.cancelled == 10_000


async def test_right_after_an_await_the_figures_are_final(coordinator: Coordinator) -> None:
    for i in range(1, 200):
        await coordinator.submit(int)
        totals = coordinator.stats().totals
        assert (totals.submitted, totals.completed, totals.executing) == (i, i, 0)


async def test_abandoned_while_the_function_runs_on(
    coordinator: Coordinator, new_gate: NewGate
) -> None:
    gates = [new_gate() for _ in range(3)]
    tokens = [coordinator.submit(gate) for gate in gates]
    for gate in gates:
        await gate.entered()
    for number, token in enumerate(tokens, 1):
        token.cancel()
        totals = coordinator.stats().totals
        assert (totals.abandoned_now, totals.abandoned_total) == (number, number)
        assert totals.executing == 3 - number
    for gate in gates:
        gate.open()
    await coordinator.aclose()
    totals = coordinator.stats().totals
    assert (totals.abandoned_now, totals.abandoned_total) == (0, 3)
    assert totals.executing == 0


async def test_the_oldest_wait_is_that_of_the_oldest_waiting_token(
    single: Coordinator, gate: Gate
) -> None:
    name = f"{__name__}.fail"
    held = single.submit(gate)
    await gate.entered()
    tokens = [single.submit(fail) for _ in range(50)]
    waiting = [token for token in tokens if token.state is TokenState.WAITING]
    before = waiting[0].wait_time
    oldest = single.stats().operations[name].oldest_wait
    assert before <= oldest <= waiting[0].wait_time
    waiting[0].cancel()
    before = waiting[1].wait_time
    oldest = single.stats().operations[name].oldest_wait
    assert before <= oldest <= waiting[1].wait_time
    for token in tokens:
        token.cancel()
    assert single.stats().operations[name].oldest_wait == 0
    gate.open()
    await held


# -- durations -------------------------------------------------------------------------------------


def spend(seconds: float) -> None:
    time.sleep(seconds)


async def test_run_times_agree_with_those_of_the_tokens(coordinator: Coordinator) -> None:
    tokens = [coordinator.submit(spend, 0.0001 * (i % 40)) for i in range(400)]
    await asyncio.gather(*tokens)
    figures = coordinator.stats().operations[f"{__name__}.spend"]
    for durations, times in (
        (figures.run, sorted(token.run_time for token in tokens)),
        (figures.wait, sorted(token.wait_time for token in tokens)),
    ):
        assert durations.count == durations.total_count == 400
        assert durations.total_sum == pytest.approx(sum(times), rel=1e-6)
        assert durations.mean == pytest.approx(sum(times) / 400, rel=0.05)
        assert durations.max == pytest.approx(times[-1], rel=0.05)
        assert times[195] * 0.95 <= durations.p50 <= times[205] * 1.05
        assert times[390] * 0.95 <= durations.p99 <= times[399] * 1.05
        previous = 0
        for bound, count in durations.buckets:
            exact = sum(duration <= bound for duration in times)
            assert previous <= count <= 400
            assert abs(count - exact) <= 400 * 0.05
            previous = count
        bounds = [bound for bound, _ in durations.buckets]
        assert bounds == sorted(set(bounds))
        assert bounds[-1] == math.inf
        assert durations.buckets[-1][1] == 400


async def test_durations_cover_failures_and_nothing_that_never_ran(
    single: Coordinator, gate: Gate
) -> None:
    held = single.submit(gate)
    await gate.entered()
    tokens = [single.submit(fail) for _ in range(10)]
    for token in tokens[5:]:
        token.cancel()
    gate.open()
    await asyncio.gather(held, *tokens, return_exceptions=True)
    figures = single.stats().operations[f"{__name__}.fail"]
    assert figures.run.total_count == figures.wait.total_count == 5


def test_durations_of_nothing_are_zero(coordinator: Coordinator) -> None:
    coordinator.stop()
    refused = coordinator.submit(fail)
    assert refused.exception() is not None
    run = coordinator.stats().operations[f"{__name__}.fail"].run
    assert (run.count, run.mean, run.max, run.p50, run.p99, run.total_sum) == (0, 0, 0, 0, 0, 0)
    assert all(count == 0 for _, count in run.buckets)


# -- the lane --------------------------------------------------------------------------------------


async def test_workers_start_as_they_are_needed(coordinator: Coordinator, gate: Gate) -> None:
    for count in range(1, 5):
        token = coordinator.submit(gate)
        assert not token.done()
        await gate.entered()
        lane = coordinator.stats().lanes["thread"]
        assert (lane.workers, lane.active) == (count, count)
    waiting = [coordinator.submit(gate) for _ in range(20)]
    assert coordinator.stats().lanes["thread"].workers == 4
    gate.open()
    await asyncio.gather(*waiting)
    await coordinator.drain()
    assert gate.most_inside == 4


async def test_idle_workers_are_not_active(
    coordinator: Coordinator, gate: Gate, until: Until
) -> None:
    tokens = [coordinator.submit(gate) for _ in range(4)]
    await gate.entered(4)
    gate.open()
    await asyncio.gather(*tokens)
    await until(lambda: coordinator.stats().lanes["thread"].active == 0)
    assert coordinator.stats().lanes["thread"].workers == 4


async def test_no_more_wake_ups_than_tokens(coordinator: Coordinator, until: Until) -> None:
    for _ in range(100):
        await coordinator.submit(int)
        await until(lambda: coordinator.stats().lanes["thread"].active == 0)
    assert coordinator.stats().lanes["thread"].wakes <= 100


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells CPU time per thread")
async def test_cpu_seconds_are_those_of_the_workers(coordinator: Coordinator) -> None:
    def burn() -> float:
        begin = time.thread_time()
        while time.thread_time() - begin < 0.05:
            pass
        return time.thread_time() - begin

    burned = sum(await asyncio.gather(*[coordinator.submit(burn) for _ in range(4)]))
    assert burned <= coordinator.stats().lanes["thread"].cpu_seconds <= burned + 0.5
    await coordinator.aclose()
    cpu = coordinator.stats().lanes["thread"].cpu_seconds
    assert burned <= cpu <= burned + 0.5  # it stays when they have ended
    assert coordinator.stats().lanes["thread"].cpu_seconds == cpu
    coordinator.start()
    await coordinator.submit(burn)
    assert coordinator.stats().lanes["thread"].cpu_seconds >= burned + 0.05


async def test_after_a_resize(coordinator: Coordinator, gate: Gate) -> None:
    coordinator.resize("thread", 2)
    lane = coordinator.stats().lanes["thread"]
    assert lane.max_workers == 2
    tokens = [coordinator.submit(gate) for _ in range(10)]
    await gate.entered(2)
    assert coordinator.stats().lanes["thread"].workers == 2
    coordinator.resize("thread", 3)
    await gate.entered()
    gate.open()
    await asyncio.gather(*tokens)
    assert gate.most_inside == 3


async def test_loop_lag_is_measured(coordinator: Coordinator, gate: Gate) -> None:
    token = coordinator.submit(gate)
    await gate.entered()
    awaited = asyncio.ensure_future(asyncio.wait([asyncio.ensure_future(token)]))
    await asyncio.sleep(0)
    gate.open()
    threading.Event().wait(0.05)  # the loop is kept from draining for so long
    await awaited
    lag = coordinator.stats().loop_lag
    assert lag.count >= 1
    assert lag.max >= 0.03
    assert 0 < lag.p50 <= lag.max * 1.05
    assert lag.p99 <= lag.max * 1.05


# -- the snapshot ----------------------------------------------------------------------------------


async def test_as_dict_is_ready_for_json(coordinator: Coordinator) -> None:
    await coordinator.submit(int)
    stats = coordinator.stats()
    plain = stats.as_dict()
    assert plain["operations"]["builtins.int"]["completed"] == 1
    assert plain["totals"]["submitted"] == 1
    text = json.dumps(plain, allow_nan=False)  # Infinity is no JSON, and a browser refuses it
    assert json.loads(text)["lanes"]["thread"]["max_workers"] == 4


async def test_a_snapshot_does_not_change(coordinator: Coordinator) -> None:
    before = coordinator.stats()
    await coordinator.submit(int)
    assert before.totals.submitted == 0
    assert coordinator.stats().totals.submitted == 1
    with pytest.raises(AttributeError):
        before.totals.submitted = 5  # type: ignore[misc]


async def test_totals_are_the_sums(coordinator: Coordinator) -> None:
    for i in range(10):
        await coordinator.submit(task_token_guard(f"summed {i}")(abs), -i)
    stats = coordinator.stats()
    for field in dataclasses.fields(stats.totals):
        assert getattr(stats.totals, field.name) == sum(
            getattr(each, field.name) for each in stats.operations.values()
        )
    assert stats.totals.completed == 10


async def test_asked_from_inside_a_function(single: Coordinator) -> None:
    def look() -> Stats:
        token = current_token()
        assert token is not None
        assert token.state is TokenState.EXECUTING
        return single.stats()

    stats = await single.submit(look)
    assert (stats.totals.executing, stats.totals.completed) == (1, 0)
    assert stats.lanes["thread"].active == 1


async def test_two_coordinators_keep_their_own_books(
    coordinator: Coordinator, new_coordinator: NewCoordinator
) -> None:
    other = new_coordinator()
    await coordinator.submit(int)
    assert other.stats().totals.submitted == 0


async def test_the_books_go_on_after_a_restart(coordinator: Coordinator) -> None:
    await coordinator.submit(int)
    await coordinator.aclose()
    assert coordinator.stats().totals.completed == 1
    coordinator.start()
    await coordinator.submit(int)
    assert coordinator.stats().totals.completed == 2
