import asyncio
import time

import pytest

from tokengate.wave.heartbeat import Heartbeat, summarise


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0
        self.step = 0.0
        self.read = asyncio.Event()
        self.reads = 0

    def __call__(self) -> float:
        self.now += self.step
        self.reads += 1
        if self.reads >= 10:
            self.read.set()
        return self.now


async def test_every_beat_that_fell_into_a_stall_counts_with_its_own_lateness() -> None:
    clock = FakeClock()
    heartbeat = Heartbeat(interval=0.5, clock=clock)
    heartbeat.start()
    clock.now += 2.25
    lag = heartbeat.stop()
    # Due at 0, 0.5, 1, 1.5 and 2 s, seen at 2.25 s.
    assert lag.beats == 5
    assert lag.max == 2.25
    assert lag.p50 == 1.25


async def test_a_beat_is_counted_once_whether_the_loop_or_stop_saw_it() -> None:
    clock = FakeClock()
    heartbeat = Heartbeat(interval=0.5, clock=clock)
    heartbeat.start()
    clock.now += 0.25
    await asyncio.sleep(0)
    clock.now += 0.5
    lag = heartbeat.stop()
    assert (lag.beats, lag.max) == (2, 0.25)


async def test_beats_go_on_while_the_loop_runs() -> None:
    clock = FakeClock()
    clock.step = 0.001
    heartbeat = Heartbeat(interval=0.001, clock=clock)
    heartbeat.start()
    await clock.read.wait()
    assert heartbeat.stop().beats >= 9


async def test_work_before_the_first_await_counts() -> None:
    heartbeat = Heartbeat()
    heartbeat.start()
    begun = time.monotonic()
    while time.monotonic() < begun + 0.03:
        pass
    await asyncio.sleep(0)
    assert heartbeat.stop().max >= 0.03


async def test_after_stop_the_loop_has_no_beat_left() -> None:
    clock = FakeClock()
    heartbeat = Heartbeat(interval=0.001, clock=clock)
    heartbeat.start()
    heartbeat.stop()
    reads = clock.reads
    for _ in range(3):
        await asyncio.sleep(0)
    assert clock.reads == reads


async def test_stop_without_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        Heartbeat().stop()


def test_quantiles_are_nearest_rank() -> None:
    lag = summarise([n / 1000 for n in range(200, 0, -1)])
    assert (lag.p50, lag.p99, lag.max, lag.beats) == (0.100, 0.198, 0.200, 200)
    assert summarise([3.0]).p99 == 3.0


def test_no_beats_cannot_be_summarised() -> None:
    with pytest.raises(ValueError, match="no beats"):
        summarise([])
