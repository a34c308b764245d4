"""``python -m tokengate wave``: options, the run itself, and where its results go."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tokengate import LaneUnavailable, use

from . import plan, report
from .environment import observe
from .export import write_json
from .lanes import LANE_NAMES, coordinator_for, describe_workers, on_lane
from .mix import pick
from .options import EXIT_FAILED, EXIT_INTERRUPTED, check_files, numbers, positive, say, words
from .progress import ProgressLine, Ticker
from .record import WaveRun, WaveSample
from .runner import run_waves
from .tasks import REFERENCE_TASKS

TASK_NAMES = tuple(task.name for task in REFERENCE_TASKS)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``wave`` to the command line."""
    parser = commands.add_parser(
        "wave",
        help="batches of four varied tasks that double in size: find this machine's sweet spot",
        description=(
            "Submits waves of tokens - 4, 8, 16 ... 65,536, four small tasks in turn - each "
            "at once, awaits all, checks every result and reports what it took. Ctrl-C stops "
            "early and keeps what was measured. Exit status: 0; 1 if a token failed or a file "
            "could not be written; 130 after Ctrl-C."
        ),
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--waves",
        type=int,
        metavar="N",
        help=f"number of doubling waves, from {plan.FIRST_WAVE} tokens "
        f"(default {plan.DEFAULT_WAVES}: up to 65,536)",
    )
    sizes.add_argument(
        "--max", type=int, metavar="TOKENS", help="double up to at most this many tokens"
    )
    sizes.add_argument(
        "--sizes", type=numbers, metavar="N,N,...", help="exactly these waves, in tokens, rising"
    )
    parser.add_argument(
        "--tasks",
        type=words,
        default=TASK_NAMES,
        metavar="NAME,...",
        help=f"tasks to take in turn (default: {','.join(TASK_NAMES)})",
    )
    parser.add_argument(
        "--lane",
        default="thread",
        metavar="NAME",
        help=f"where the tokens execute: {LANE_NAMES} (default: thread)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="most workers of that lane (default: the coordinator's own number)",
    )
    parser.add_argument(
        "--repeat",
        type=positive,
        default=1,
        metavar="N",
        help="go through all waves N times; sweet spot by medians, rows show the median repeat",
    )
    parser.add_argument(
        "--baseline",
        action="store_true",
        help="beside each wave also time the same calls in a plain for loop; print the ratio",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw a picture of the run (matplotlib)"
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark as asked; the exit status. Wrong options exit with 2, as argparse does."""
    parser: argparse.ArgumentParser = arguments.parser
    lane: str = arguments.lane
    try:
        sizes = _sizes(arguments)
        mix = pick(on_lane(REFERENCE_TASKS, lane), arguments.tasks)
        coordinator = coordinator_for(lane, arguments.workers, name="wave")
    except (ValueError, LaneUnavailable) as error:
        parser.error(str(error))
    check_files(parser, arguments.plot, arguments.json)

    wave_run = WaveRun(sizes=sizes, repeats=arguments.repeat)
    say(report.title(wave_run, mix.names))
    watcher = _Screen(wave_run, f"{lane} lane")

    async def measure() -> None:
        async with coordinator:
            with use(coordinator), Ticker(watcher.line, watcher.progress):
                try:
                    await run_waves(wave_run, mix, watcher, baseline=arguments.baseline)
                finally:
                    # Now: a stopped coordinator has no workers left to count.
                    watcher.workers = describe_workers(coordinator.stats(), lane)

    try:
        asyncio.run(measure())
    except KeyboardInterrupt:
        wave_run.interrupted = True
    watcher.close()

    environment = observe(watcher.workers)
    say("", *report.summary_lines(wave_run, environment))
    status = EXIT_FAILED if wave_run.failures() else 0
    try:
        if arguments.json is not None:
            write_json(arguments.json, wave_run, mix.names, environment)
            say(f"Figures written to {arguments.json}")
        if arguments.plot is not None and wave_run.samples:
            from .plot import write_plot

            write_plot(arguments.plot, wave_run, environment)
            say(f"Picture written to {arguments.plot}")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        status = EXIT_FAILED
    return EXIT_INTERRUPTED if wave_run.interrupted else status


class _Screen:
    """Prints rows as they come and keeps the progress line beneath them."""

    def __init__(self, wave_run: WaveRun, workers: str) -> None:
        self.line = ProgressLine(sys.stderr)
        self.workers = workers
        self._run = wave_run
        self._stage = "starting"
        self._stage_start = time.monotonic()
        self._printed = False

    def stage(self, text: str) -> None:
        self._stage = text
        self._stage_start = time.monotonic()
        self.line.show(self.progress())

    def measured(self, run: WaveRun, sample: WaveSample) -> None:
        # With repeats the rows are only known at the end.
        if run.repeats == 1:
            self._print_rows(len(run.rows()) - 1)

    def progress(self) -> str:
        share = self._run.measured / self._run.planned
        return (
            f"{self._stage}, {time.monotonic() - self._stage_start:.0f} s; "
            f"{share:.0%} of the run; Ctrl-C keeps what is measured"
        )

    def close(self) -> None:
        """Remove the progress line; print the rows that were held back."""
        self.line.clear()
        if not self._printed and self._run.samples:
            self._print_rows(0)

    def _print_rows(self, first: int) -> None:
        self.line.clear()
        if not self._printed:
            self._printed = True
            say(*report.header_lines())
        say(*(report.row_line(row) for row in self._run.rows()[first:]))


def _sizes(arguments: argparse.Namespace) -> tuple[int, ...]:
    if arguments.sizes is not None:
        return plan.checked(arguments.sizes)
    if arguments.max is not None:
        return plan.doubling_up_to(arguments.max)
    return plan.doubling(plan.DEFAULT_WAVES if arguments.waves is None else arguments.waves)
