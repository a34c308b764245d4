"""What this process holds and what its threads have done, as the system counts it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from _harness import Missing

LINUX = sys.platform == "linux"
TASKS = Path("/proc/self/task")
ROLLUP = Path("/proc/self/smaps_rollup")


def resident_bytes() -> int:
    """Resident memory of this process in bytes, exact to the page on Linux.

    psutil reads statm, whose counters Linux keeps per thread and folds in late; the roll-up
    walks the pages instead. Raises `Missing` where neither is to be had.
    """
    if ROLLUP.exists():
        for line in ROLLUP.read_text(encoding="ascii").splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    try:
        import psutil
    except ImportError:
        raise Missing("resident memory needs psutil here (pip install psutil)") from None
    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True, slots=True)
class ThreadUse:
    """What one thread has used since it began."""

    cpu_seconds: float
    voluntary_switches: int
    """Times it went to sleep of itself: as many as it was woken."""


def thread_use() -> dict[int, ThreadUse]:
    """The use of every thread of this process, by the system's thread id.

    Raises `Missing` on other systems than Linux.
    """
    if not LINUX:
        raise Missing("context switches of each thread are counted by Linux only")
    return {int(task.name): _read_use(task) for task in TASKS.iterdir()}


def _read_use(task: Path) -> ThreadUse:
    # First of three fields: nanoseconds on a CPU; stat's ticks of 10 ms would be too coarse.
    try:
        nanoseconds = int((task / "schedstat").read_text(encoding="ascii").split()[0])
    except FileNotFoundError:
        raise Missing("this kernel keeps no /proc/self/task/*/schedstat") from None
    for line in (task / "status").read_text(encoding="utf-8").splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return ThreadUse(nanoseconds / 1e9, int(line.split()[1]))
    raise Missing(f"{task}/status counts no context switches")
