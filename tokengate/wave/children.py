"""CPU time of the processes this one has started, and of those they have: the worker processes."""

from __future__ import annotations

import contextlib

import psutil

__all__ = ["children_cpu_seconds"]


def children_cpu_seconds() -> float:
    """CPU time so far of all child processes that live, and theirs; 0.0 with none.

    In steps of a clock tick, 10 ms most often. Looks at every process of the system: some
    milliseconds. A worker that has ended in between takes its time along, so that of two readings
    the second may be the smaller one.
    """
    seconds = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended since, or is not ours to look at
            times = child.cpu_times()
            seconds += times.user + times.system
    return seconds
