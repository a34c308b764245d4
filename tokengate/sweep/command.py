"""``python -m tokengate sweep``: options, the run itself, and where its results go."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tokengate import LaneUnavailable, topology, use
from tokengate.lanes.availability import lane_report
from tokengate.lanes.catalogue import LANES
from tokengate.machine.pinning import Pin
from tokengate.profile import default_path, save_profile
from tokengate.wave.check import ResultChecker
from tokengate.wave.environment import observe
from tokengate.wave.lanes import LANE_NAMES, coordinator_for
from tokengate.wave.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    check_files,
    numbers,
    positive,
    say,
    words,
)
from tokengate.wave.progress import ProgressLine, Ticker

from . import report
from .export import as_profile, write_json
from .intervals import LEAST
from .load import WAITING, CyclicMix, load
from .measure import Sample, measure
from .record import SweepRun
from .runner import run_blocks
from .setting import Setting, default_in_flight, default_workers, grid

__all__ = ["add_command"]

BLOCKS = 10
SECONDS = 0.5
LEAST_SECONDS = 0.05
WARM_UP = 0.5
"""As a share of the time measured; a fresh coordinator starts its workers in it."""
MOST = 4096
"""Workers a lane can have."""
PINS: tuple[Pin, ...] = get_args(Pin)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``sweep`` to the command line."""
    parser = commands.add_parser(
        "sweep",
        help="find the lane, the workers and the calls in flight that suit this machine",
        description=(
            "Measures throughput and latency of every combination of lane, workers, calls in "
            "flight and pinning, in blocks: each block measures every setting once, in a random "
            "order. Prints medians with 95%% confidence intervals and the knee of each lane, and "
            "writes a profile that Coordinator(profile=...) loads. Ctrl-C stops early and keeps "
            "the complete blocks. Exit status: 0; 1 if a token failed or a file could not be "
            "written; 130 after Ctrl-C."
        ),
    )
    parser.add_argument(
        "--lane",
        type=words,
        metavar="NAME,...",
        help=f"lanes to try: {LANE_NAMES} (default: all that can run here)",
    )
    parser.add_argument(
        "--workers",
        type=numbers,
        metavar="N,...",
        help="numbers of workers to try, in every lane (default: 1, 2, 4 ... by the CPUs)",
    )
    parser.add_argument(
        "--in-flight",
        type=numbers,
        metavar="N,...",
        help="numbers of calls under way to try (default: 4, 16 and 64 for each CPU); settings "
        "with more workers than calls are left out",
    )
    parser.add_argument(
        "--pin",
        type=words,
        default=("auto",),
        metavar="HOW,...",
        help=f"ways of binding workers to CPUs to try: {', '.join(PINS)} (default: auto)",
    )
    parser.add_argument(
        "--task",
        default="mix",
        metavar="NAME",
        help="what is called: python, small pure-Python functions; io, waits of 1 to 3 ms; mix, "
        "both in turn (default: mix)",
    )
    parser.add_argument(
        "--blocks",
        type=positive,
        default=BLOCKS,
        metavar="N",
        help=f"how often each setting is measured, at least {LEAST} (default: {BLOCKS})",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"how long each time, after a warm-up of half of it (default: {SECONDS})",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="repeat the random order of an earlier sweep"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw a picture of the sweep (matplotlib)"
    )
    profiles = parser.add_mutually_exclusive_group()
    profiles.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="write the profile to FILE (default: where Coordinator(profile=True) looks for it)",
    )
    profiles.add_argument("--no-profile", action="store_true", help="write no profile: only look")
    parser.set_defaults(run=run, parser=parser)


@dataclass(frozen=True, slots=True)
class _Plan:
    run: SweepRun
    loads: dict[str, CyclicMix]
    profile: Path | None


def run(arguments: argparse.Namespace) -> int:
    """Sweep as asked; the exit status. Wrong options exit with 2, as argparse does."""
    parser: argparse.ArgumentParser = arguments.parser
    try:
        plan = _plan(arguments)
    except (ValueError, LaneUnavailable) as error:
        parser.error(str(error))
    check_files(parser, arguments.plot, arguments.json, arguments.profile)

    sweep = plan.run
    say(report.title(sweep))
    screen = _Screen(sweep)
    try:
        asyncio.run(_sweep(plan, screen))
    except KeyboardInterrupt:
        sweep.interrupted = True
    screen.line.clear()

    environment = observe(f"task {sweep.task}")
    say(*report.table_lines(sweep), "", *report.summary_lines(sweep, environment))
    status = EXIT_FAILED if sweep.failures()[0] else 0
    try:
        if arguments.json is not None:
            write_json(arguments.json, sweep, environment)
            say(f"Figures written to {arguments.json}")
        if arguments.plot is not None and sweep.complete:
            from .plot import write_plot

            write_plot(arguments.plot, sweep, environment)
            say(f"Picture written to {arguments.plot}")
        profile = as_profile(sweep)
        if plan.profile is not None and profile is not None:
            save_profile(profile, plan.profile)
            asked = "True" if arguments.profile is None else repr(str(plan.profile))
            say(f"Profile written to {plan.profile}: Coordinator(profile={asked}) loads it")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        status = EXIT_FAILED
    return EXIT_INTERRUPTED if sweep.interrupted else status


async def _sweep(plan: _Plan, screen: _Screen) -> None:
    # one for all lanes: they make the same calls
    checker = ResultChecker(next(iter(plan.loads.values())))
    warm_up = plan.run.seconds * WARM_UP

    async def one(setting: Setting) -> Sample:
        coordinator = _coordinator(setting)
        async with coordinator:
            with use(coordinator):
                return await measure(
                    plan.loads[setting.lane].submit,
                    setting.in_flight,
                    warm_up=warm_up,
                    seconds=plan.run.seconds,
                    is_right=checker.problem,
                )

    with Ticker(screen.line, screen.progress):
        await run_blocks(plan.run, one, screen)


def _coordinator(setting: Setting) -> Any:
    return coordinator_for(setting.lane, setting.workers, pin=setting.pin, name="sweep")


class _Screen:
    """Keeps the progress line."""

    def __init__(self, sweep: SweepRun) -> None:
        self.line = ProgressLine(sys.stderr)
        self._sweep = sweep
        self._now = "starting"
        self._start = time.monotonic()

    def begins(self, block: int, setting: Setting) -> None:
        self._now = f"block {block}/{self._sweep.blocks}: {setting}"
        self.line.show(self.progress())

    def measured(self, run: SweepRun) -> None:
        self.line.show(self.progress())

    def progress(self) -> str:
        done, planned = self._sweep.measured, self._sweep.planned
        text = f"{done / planned:.0%}"
        if done:
            left = (time.monotonic() - self._start) / done * (planned - done)
            text += f", {int(left) // 60}:{int(left) % 60:02} left"
        return f"{text}; {self._now}; Ctrl-C keeps complete blocks"


def _plan(arguments: argparse.Namespace) -> _Plan:
    cpus = topology().count
    task: str = arguments.task
    blocks: int = arguments.blocks
    if blocks < LEAST:
        raise ValueError(
            f"--blocks {blocks}: expected at least {LEAST}, as fewer give no interval of 95 % "
            "confidence"
        )
    seconds: float = arguments.seconds
    if not LEAST_SECONDS <= seconds <= 3600:
        raise ValueError(f"--seconds {seconds:g}: expected {LEAST_SECONDS:g} to 3600")
    lanes = arguments.lane
    if lanes is None:
        lanes = [each.lane for each in lane_report() if each.available and each.lane in LANES]
    elif not lanes:
        raise ValueError(f"--lane: expected some of {LANE_NAMES}")
    loads = {lane: load(task, lane) for lane in lanes}
    settings = grid(
        {
            lane: _counts("--workers", arguments.workers, MOST)
            or default_workers(lane, cpus, task in WAITING)
            for lane in loads
        },
        _counts("--in-flight", arguments.in_flight, 1_000_000) or default_in_flight(cpus),
        _pins(arguments.pin),
    )
    for setting in settings:
        _coordinator(setting)  # says what is wrong with it, now; it starts nothing
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    profile: Path | None = arguments.profile
    if profile is None and not arguments.no_profile:
        profile = default_path()
    sweep = SweepRun(settings, blocks, task, seconds, seed)
    return _Plan(sweep, loads, profile)


def _counts(option: str, asked: tuple[int, ...] | None, most: int) -> tuple[int, ...]:
    """Checked; empty: not given."""
    if asked is None:
        return ()
    if not asked:
        raise ValueError(f"{option}: expected whole numbers, as in {option} 2,4")
    for each in asked:
        if not 1 <= each <= most:
            raise ValueError(f"{option} {each}: expected 1 to {most:,}")
    return asked


def _pins(asked: tuple[str, ...]) -> tuple[Pin, ...]:
    found: list[Pin] = [pin for pin in PINS if pin in asked]
    wrong = [pin for pin in asked if pin not in PINS]
    if wrong or not found:
        raise ValueError(f"--pin {','.join(wrong)}: expected some of {', '.join(PINS)}")
    return tuple(found)
