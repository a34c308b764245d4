import asyncio
import threading
import time
from typing import Any

import pytest

from tokengate.wave.measure import PLAIN_SLICE, time_plain, time_wave


class FakeToken(asyncio.Future[Any]):
    def __init__(self, run_time: float | None = 0.25) -> None:
        super().__init__()
        self.run_time = run_time


def finished(index: int) -> FakeToken:
    token = FakeToken()
    token.set_result(index * 10)
    return token


async def test_results_come_by_index_and_task_times_add_up() -> None:
    timing, results = await time_wave(finished, 8)
    assert results == [0, 10, 20, 30, 40, 50, 60, 70]
    assert timing.task_seconds == 2.0
    assert timing.lag.beats >= 1


async def test_an_exception_is_a_result_and_a_token_that_never_ran_took_no_time() -> None:
    def submit(index: int) -> FakeToken:
        if index != 1:
            return finished(index)
        refused = FakeToken(run_time=None)
        refused.set_exception(ValueError("no"))
        return refused

    timing, results = await time_wave(submit, 3)
    assert results[0] == 0
    assert isinstance(results[1], ValueError)
    assert timing.task_seconds == 0.5


async def test_time_runs_from_the_first_submit_to_the_last_result() -> None:
    first_submit = 0.0
    last_result = 0.0

    def submit(index: int) -> FakeToken:
        nonlocal first_submit
        token = FakeToken()
        if index == 0:
            first_submit = time.perf_counter()
            token.set_result(None)
        else:
            asyncio.get_running_loop().call_later(0.02, finish, token)
        return token

    def finish(token: FakeToken) -> None:
        nonlocal last_result
        last_result = time.perf_counter()
        token.set_result(None)

    timing, _ = await time_wave(submit, 2)
    assert timing.seconds >= last_result - first_submit >= 0.019


async def test_cpu_time_is_that_of_the_process() -> None:
    def burn(index: int) -> FakeToken:
        begun = time.process_time()
        while time.process_time() < begun + 0.02:
            pass
        return finished(index)

    timing, _ = await time_wave(burn, 2)
    assert timing.cpu_seconds >= 0.04
    # Submitting held the loop up, and the heartbeat has seen it.
    assert timing.lag.max >= 0.04


async def test_cancelling_a_wave_cancels_its_tokens() -> None:
    tokens: list[FakeToken] = []
    submitted = asyncio.Event()

    def submit(_: int) -> FakeToken:
        tokens.append(FakeToken())
        if len(tokens) == 3:
            submitted.set()
        return tokens[-1]

    wave = asyncio.create_task(time_wave(submit, 3))
    await submitted.wait()
    wave.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wave
    assert all(token.cancelled() for token in tokens)


async def test_the_plain_loop_makes_every_call_once_in_order() -> None:
    calls = PLAIN_SLICE * 2 + 3
    timing, results = await time_plain(lambda index: index * 2, calls)
    assert results == [index * 2 for index in range(calls)]
    assert timing.seconds > 0


async def test_the_plain_loop_tells_working_from_waiting() -> None:
    def burn(_: int) -> None:
        begun = time.process_time()
        while time.process_time() < begun + 0.02:
            pass

    burnt, _ = await time_plain(burn, 2)
    assert burnt.cpu_seconds >= 0.04
    waited, _ = await time_plain(lambda _: threading.Event().wait(0.05), 1)
    assert waited.seconds >= 0.05
    assert waited.cpu_seconds < 0.025


async def test_the_plain_loop_lets_the_event_loop_in_between_slices() -> None:
    made: list[int] = []
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: seen.append(len(made)))

    def call(index: int) -> None:
        made.append(index)

    await time_plain(call, PLAIN_SLICE * 2)
    assert seen == [PLAIN_SLICE]
