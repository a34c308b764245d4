"""What a coordinator costs that has nothing to do: CPU time and wake-ups of its threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import _gate
from _cli import main
from _figures import Figure, Section, Target
from _harness import Options, progress
from _process import ThreadUse, thread_use

if TYPE_CHECKING:
    from tokengate import Coordinator

WORKERS = 32
SECONDS = 10.0
QUICK_SECONDS = 2.0
PATIENCE = 5.0
LANE = "thread"

EXPLANATION = """\
All workers are started by as many tokens that hold one each, then let go; the coordinator and
its loop then idle. The time is split into as many windows as there are rounds, and each window
is read from the system's own count of every thread: seconds on a CPU, and voluntary context
switches, which are as many as its wake-ups. The figures are sums over the whole time. The loop's
thread wakes once a window for the reading itself, which is taken off."""


async def start_all(coordinator: Coordinator) -> int:
    """Make the coordinator start its workers and let them finish; how many it has.

    Each token holds its worker until as many hold theirs as there are to be. Where fewer are let
    in at once, that never comes: then the first to lose patience lets all go.
    """
    everyone = threading.Event()
    lock = threading.Lock()
    holding = 0

    def hold() -> None:
        nonlocal holding
        with lock:
            holding += 1
            if holding == WORKERS:
                everyone.set()
        everyone.wait(PATIENCE)
        everyone.set()

    guarded = _gate.guard(hold, "bench.hold").options(coordinator=coordinator)
    await asyncio.gather(*[guarded() for _ in range(WORKERS)])
    return coordinator.stats().lanes[LANE].workers


async def watch(window: float) -> tuple[dict[int, ThreadUse], dict[int, ThreadUse]]:
    """The use of every thread before and after `window` seconds of idling."""
    before = thread_use()
    await asyncio.sleep(window)
    return before, thread_use()


async def measure(windows: int, window: float) -> tuple[int, list[tuple[float, int, int]]]:
    """Workers started, and per window: CPU seconds and switches of all others, of the loop's."""
    from tokengate import Coordinator

    own = threading.get_native_id()
    taken: list[tuple[float, int, int]] = []
    async with Coordinator(thread_workers=WORKERS, name="bench-idle") as coordinator:
        workers = await start_all(coordinator)
        await watch(window / 4)  # Settling, and the first reading's own imports and caches.
        for number in range(1, windows + 1):
            progress(f"window {number}/{windows}: {window:g} s of nothing")
            before, after = await watch(window)
            cpu = 0.0
            switches = {True: 0, False: 0}
            for thread, use in after.items():
                start = before.get(thread, ThreadUse(0.0, 0))
                switches[thread == own] += use.voluntary_switches - start.voluntary_switches
                if thread != own:
                    cpu += use.cpu_seconds - start.cpu_seconds
            taken.append((cpu, switches[False], switches[True]))
    progress("")
    return workers, taken


def run(options: Options) -> Section:
    """Measure the idle row of the table. Meant for a process that has done nothing else."""
    _gate.load()
    section = Section("idle", EXPLANATION)
    seconds = QUICK_SECONDS if options.quick else SECONDS
    workers, windows = asyncio.run(measure(options.rounds, seconds / options.rounds))
    cpu, wakes, own = (sum(column) for column in zip(*windows, strict=True))
    section.figures += [
        Figure("workers started", "workers", (workers,), Target("at least", WORKERS)),
        Figure(
            f"CPU time of all threads but the loop's in {seconds:g} s",
            "ms",
            (cpu * 1_000,),
            Target("at most", 1),
        ),
        Figure(
            f"their wake-ups in {seconds:g} s",
            "wake-ups",
            (wakes,),
            # One a worker would be a single late settling; a timer shows in every window.
            Target("at most", 2),
        ),
        Figure(
            f"wake-ups of the loop's thread in {seconds:g} s",
            "wake-ups",
            (max(0, own - len(windows)),),
            Target("at most", 2),
            note="but for the readings",
        ),
    ]
    section.remarks.append(
        "by window, wake-ups of the others: " + ", ".join(str(each[1]) for each in windows)
    )
    return section


if __name__ == "__main__":
    raise SystemExit(main({"idle": run}))
