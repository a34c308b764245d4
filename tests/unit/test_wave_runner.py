import asyncio
from typing import Any

import pytest

from tokengate.wave.mix import ReferenceTask, TaskMix
from tokengate.wave.record import WaveRun, WaveSample
from tokengate.wave.runner import run_waves


class FakeToken(asyncio.Future[Any]):
    run_time = 0.001


class Log:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.samples: list[WaveSample] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def measured(self, run: WaveRun, sample: WaveSample) -> None:
        assert sample in run.samples[sample.tokens]
        self.samples.append(sample)


class Work:
    """Submits that finish at once, except where told otherwise; counts what was asked."""

    def __init__(self) -> None:
        self.submitted = 0
        self.plain_calls = 0
        self.wrong: set[int] = set()
        self.hang_from: int | None = None
        self.hanging = asyncio.Event()
        self.mix = TaskMix([ReferenceTask("square", self.submit, self.plain, lambda i: (i,))])

    def submit(self, n: int) -> FakeToken:
        self.submitted += 1
        token = FakeToken()
        if self.hang_from is not None and self.submitted > self.hang_from:
            self.hanging.set()
        elif n in self.wrong:
            token.set_exception(ValueError(f"{n} is bad"))
        else:
            token.set_result(n * n)
        return token

    def plain(self, n: int) -> int:
        self.plain_calls += 1
        return n * n


async def test_all_waves_are_measured_after_a_warm_up_that_is_not() -> None:
    work, log, run = Work(), Log(), WaveRun(sizes=(4, 8, 16))
    await run_waves(run, work.mix, log, warm_up=10)
    assert work.submitted == 10 + 28
    assert [sample.tokens for sample in log.samples] == [4, 8, 16]
    assert [sample.ok for sample in log.samples] == [4, 8, 16]
    assert all(sample.plain_seconds is None for sample in log.samples)
    assert run.measured == run.planned == 28


async def test_failures_are_counted_and_named() -> None:
    work, log, run = Work(), Log(), WaveRun(sizes=(4, 8))
    work.wrong = {1, 6}
    await run_waves(run, work.mix, log, warm_up=1)
    assert [(sample.ok, sample.failed) for sample in log.samples] == [(3, 1), (6, 2)]
    assert run.failures() == {
        "square: ValueError: 1 is bad": 2,
        "square: ValueError: 6 is bad": 1,
    }


async def test_repeats_go_round_all_waves() -> None:
    work, log, run = Work(), Log(), WaveRun(sizes=(4, 8), repeats=3)
    await run_waves(run, work.mix, log, warm_up=1)
    assert [sample.tokens for sample in log.samples] == [4, 8, 4, 8, 4, 8]


async def test_the_plain_loop_runs_beside_each_wave_before_and_after_in_turns() -> None:
    work, log, run = Work(), Log(), WaveRun(sizes=(4, 8))
    await run_waves(run, work.mix, log, baseline=True, warm_up=1)
    assert all(sample.plain_seconds for sample in log.samples)
    plain = [stage.endswith("plain loop") for stage in log.stages]
    wave_1, wave_2 = plain[1:4], plain[4:7]
    assert wave_1 == [False, False, True]
    assert wave_2 == [True, False, False]


async def test_cancelling_keeps_the_waves_that_were_measured() -> None:
    work, log, run = Work(), Log(), WaveRun(sizes=(4, 8, 16))
    work.hang_from = 1 + 4 + 8 + 3
    running = asyncio.create_task(run_waves(run, work.mix, log, warm_up=1))
    await work.hanging.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(run.samples) == [4, 8]
