"""The grid, the order of blocks, and one measurement."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tokengate.sweep.load import LOADS, load
from tokengate.sweep.measure import Sample, measure
from tokengate.sweep.record import SweepRun
from tokengate.sweep.runner import order_of_block, run_blocks
from tokengate.sweep.setting import Setting, default_in_flight, default_workers, grid

TIMEOUT = 30.0


class FakeToken(asyncio.Future[Any]):
    run_time = 0.001


def right(_: int, result: object) -> str | None:
    return None if result == "right" else f"wrong: {result!r}"


# -- the grid ----------------------------------------------------------------------------------


def test_the_grid_is_every_combination_but_those_with_idle_workers() -> None:
    settings = grid({"thread": (1, 8), "process": (2,)}, (4, 16), ("none", "core"))
    assert settings == tuple(
        Setting(lane, workers, in_flight, pin)
        for lane, workers, in_flight, pin in [
            ("thread", 1, 4, "none"),
            ("thread", 1, 4, "core"),
            ("thread", 1, 16, "none"),
            ("thread", 1, 16, "core"),
            ("thread", 8, 16, "none"),
            ("thread", 8, 16, "core"),
            ("process", 2, 4, "none"),
            ("process", 2, 4, "core"),
            ("process", 2, 16, "none"),
            ("process", 2, 16, "core"),
        ]
    )
    with pytest.raises(ValueError, match="most calls in flight, 4"):
        grid({"thread": (8,)}, (2, 4), ("auto",))


def test_defaults_follow_the_cpus() -> None:
    assert default_workers("thread", 2, waits=False) == (1, 2, 4, 8)
    assert default_workers("thread", 2, waits=True) == (1, 4, 16, 64)
    assert default_workers("process", 2, waits=True) == (1, 2, 4)
    assert default_workers("process", 1, waits=False) == (1, 2)
    assert default_in_flight(2) == (8, 32, 128)


# -- blocks ------------------------------------------------------------------------------------


def run_of(blocks: int, seed: int = 5) -> SweepRun:
    settings = grid({"thread": (1, 2, 4, 8)}, (8, 16), ("auto",))
    return SweepRun(settings, blocks, "mix", 1.0, seed)


SAMPLE = Sample(10, 0, None, 1.0, 0.1, 0.2, 0.001, None)


class Log:
    def __init__(self) -> None:
        self.order: list[tuple[int, Setting]] = []
        self.counts: list[int] = []

    def begins(self, block: int, setting: Setting) -> None:
        self.order.append((block, setting))

    def measured(self, run: SweepRun) -> None:
        self.counts.append(run.measured)


async def sampled(_: Setting) -> Sample:
    return SAMPLE


async def test_each_block_measures_every_setting_once_in_an_order_of_its_own() -> None:
    run, log = run_of(6), Log()
    await run_blocks(run, sampled, log)
    orders = [[each for number, each in log.order if number == block] for block in range(1, 7)]
    assert all(sorted(order, key=lambda each: each.cost) == list(run.settings) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert log.counts == list(range(1, 49))
    assert len(run.complete) == 6
    assert not run.part


def test_the_order_follows_from_the_seed() -> None:
    assert order_of_block(run_of(6), 3) == order_of_block(run_of(6), 3)
    assert order_of_block(run_of(6), 3) != order_of_block(run_of(6, seed=6), 3)


async def test_cancelling_keeps_the_complete_blocks() -> None:
    run, log = run_of(6), Log()
    hanging = asyncio.Event()

    async def hangs(_: Setting) -> Sample:
        if len(log.order) > 8 + 3:
            hanging.set()
            await asyncio.Event().wait()
        return SAMPLE

    running = asyncio.create_task(run_blocks(run, hangs, log))
    await asyncio.wait_for(hanging.wait(), TIMEOUT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (len(run.complete), len(run.part)) == (1, 3)


# -- one measurement ---------------------------------------------------------------------------


async def test_so_many_calls_are_under_way_all_the_time() -> None:
    pending: set[FakeToken] = set()
    most = 0
    asked: list[int] = []

    def submit(index: int) -> FakeToken:
        nonlocal most
        asked.append(index)
        token = FakeToken()
        pending.add(token)
        most = max(most, len(pending))
        asyncio.get_running_loop().call_later(0.001, answer, token)
        return token

    def answer(token: FakeToken) -> None:
        pending.discard(token)
        if not token.done():
            token.set_result("right")

    found = await measure(submit, 5, warm_up=0.01, seconds=0.1, is_right=right)
    assert most == 5
    assert not pending
    assert asked == list(range(len(asked)))
    # those of the warm-up, and those answered after the end, are not counted
    assert 5 <= found.tokens < len(asked)
    assert found.failed == 0
    assert found.seconds >= 0.1
    assert found.throughput == found.tokens / found.seconds
    assert 0.0005 < found.latency_p50 <= found.latency_p99


async def test_the_warm_up_begins_with_the_last_first_answer() -> None:
    """A worker that takes long to start is not part of the figures."""
    first: list[FakeToken] = []

    def submit(index: int) -> FakeToken:
        token = FakeToken()
        if index == 0:
            first.append(token)
            asyncio.get_running_loop().call_later(0.3, token.set_result, "right")
        else:
            asyncio.get_running_loop().call_soon(token.set_result, "right")
        return token

    found = await measure(submit, 2, warm_up=0.0, seconds=0.05, is_right=right)
    assert first[0].done()
    assert found.latency_p99 < 0.3


async def test_failures_and_wrong_results_are_counted_and_the_first_is_told() -> None:
    def submit(index: int) -> FakeToken:
        if index == 1:
            raise LookupError("refused")
        token = FakeToken()
        asyncio.get_running_loop().call_later(
            0.001, token.set_result, "left" if index == 3 else "right"
        )
        return token

    found = await measure(submit, 2, warm_up=0.0, seconds=0.05, is_right=right)
    assert found.failed == 2
    assert found.problem == "wrong: LookupError('refused')"


async def test_calls_that_are_refused_at_once_do_not_hold_the_loop() -> None:
    def submit(_: int) -> FakeToken:
        token = FakeToken()
        token.set_exception(LookupError("no"))
        return token

    found = await asyncio.wait_for(
        measure(submit, 3, warm_up=0.01, seconds=0.05, is_right=right), TIMEOUT
    )
    assert found.failed >= found.tokens > 0


async def test_nothing_answered_is_no_throughput_and_the_longest_latency() -> None:
    answered = asyncio.Event()

    def submit(index: int) -> FakeToken:
        token = FakeToken()
        loop = asyncio.get_running_loop()
        if index == 0:
            loop.call_soon(token.set_result, "right")
        else:
            loop.call_later(0.2, token.set_result, "right")
            answered.set()
        return token

    found = await measure(submit, 1, warm_up=0.0, seconds=0.05, is_right=right)
    assert answered.is_set()
    assert (found.tokens, found.throughput) == (0, 0.0)
    assert found.latency_p99 >= 0.05


async def test_cancelling_cancels_the_tokens() -> None:
    tokens: list[FakeToken] = []
    made = asyncio.Event()

    def submit(_: int) -> FakeToken:
        tokens.append(FakeToken())
        if len(tokens) == 4:
            made.set()
        return tokens[-1]

    running = asyncio.create_task(measure(submit, 4, warm_up=0.0, seconds=TIMEOUT, is_right=right))
    await asyncio.wait_for(made.wait(), TIMEOUT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(token.cancelled() for token in tokens)


# -- the load ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADS)
async def test_calls_repeat_and_give_what_the_plain_functions_give(name: str) -> None:
    mix = load(name, "thread")
    count = len(mix.tasks)
    for index in (0, 1, count, 241):
        task, arguments = mix.call(index)
        assert await mix.submit(index) == task.plain(*arguments)
    assert mix.call(240) == mix.call(0)
    assert [mix.call(index)[0] for index in range(count)] == list(mix.tasks)


def test_a_load_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="--task 'sleep': expected python, io, mix"):
        load("sleep", "thread")
