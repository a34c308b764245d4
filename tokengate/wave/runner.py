"""Runs all waves in order, each repeat from the smallest to the largest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from .check import ResultChecker
from .measure import PlainTiming, TimedToken, time_plain, time_wave
from .mix import TaskMix
from .plan import WARM_UP_TOKENS
from .record import WaveRun, WaveSample

TokenT = TypeVar("TokenT", bound=TimedToken[Any])


class Watcher(Protocol):
    """Is told how a run gets on."""

    def stage(self, text: str) -> None:
        """What happens from now on: a wave, its plain counterpart, the check of its results."""

    def measured(self, run: WaveRun, sample: WaveSample) -> None:
        """A wave was added to the run."""


async def run_waves(
    run: WaveRun,
    mix: TaskMix[TokenT],
    watcher: Watcher,
    *,
    baseline: bool = False,
    warm_up: int = WARM_UP_TOKENS,
) -> None:
    """Measure every wave of `run` and add it there, after `warm_up` tokens that are not recorded.

    Repeats go round and round over all waves, so that a machine that slows down meanwhile hurts
    all sizes alike; with `baseline` each wave runs beside a plain loop of the same calls, in
    turns before and after it. Cancelling this cancels the wave under way; what was added stays.
    """
    checker = ResultChecker(mix)
    watcher.stage(f"warm-up, {warm_up:,} tokens")
    await time_wave(mix.submit, warm_up)
    for repeat in range(run.repeats):
        for number, tokens in enumerate(run.sizes, start=1):
            where = f"wave {number}/{len(run.sizes)}, {tokens:,} tokens"
            if run.repeats > 1:
                where = f"repeat {repeat + 1}/{run.repeats}, {where}"
            plain_first = (repeat + number) % 2 == 0
            plain: PlainTiming | None = None
            if baseline and plain_first:
                plain = await _plain(mix.call_plain, checker, tokens, watcher, where)
            watcher.stage(where)
            timing, results = await time_wave(mix.submit, tokens)
            watcher.stage(f"{where}: checking results")
            verdict = await checker.check(results)
            # The largest wave's results are some hundred megabytes: not twice at once.
            del results
            if baseline and not plain_first:
                plain = await _plain(mix.call_plain, checker, tokens, watcher, where)
            sample = WaveSample(
                tokens=tokens,
                ok=verdict.ok,
                failures=dict(verdict.failures),
                seconds=timing.seconds,
                cpu_seconds=timing.cpu_seconds,
                task_seconds=timing.task_seconds,
                lag_p99=timing.lag.p99,
                lag_max=timing.lag.max,
                plain_seconds=plain.seconds if plain else None,
                plain_cpu_seconds=plain.cpu_seconds if plain else None,
            )
            run.add(sample)
            watcher.measured(run, sample)


async def _plain(
    call: Callable[[int], object],
    checker: ResultChecker,
    tokens: int,
    watcher: Watcher,
    where: str,
) -> PlainTiming:
    watcher.stage(f"{where}: plain loop")
    timing, results = await time_plain(call, tokens)
    checker.learn(results)
    return timing
