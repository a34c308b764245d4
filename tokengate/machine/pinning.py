"""Binding threads and worker processes to one CPU each.

What ``pin="auto"`` means for each lane was decided by a measurement: docs/topology.md has it, and
``bench/pinning.py`` repeats it.
"""

from __future__ import annotations

import os
import sys
from types import MappingProxyType
from typing import Literal

__all__ = ["AUTO", "Pin", "PinningError", "is_pinned", "pin_current_process", "pin_current_thread"]

Pin = Literal["auto", "core", "none"]

AUTO = MappingProxyType({"thread": False, "process": False, "interpreter": False})
"""Whether workers of a lane are pinned by ``pin="auto"``."""


class PinningError(OSError):
    """A thread could not be pinned: not available on this system, or refused by it."""


def is_pinned(pin: str, lane: str) -> bool:
    """Whether ``pin=`` of a coordinator binds the workers of that lane, each to one CPU.

    ValueError for a `pin` that is none, KeyError for a lane that is none.
    """
    if pin not in ("auto", "core", "none"):
        raise ValueError(f"pin={pin!r}: expected 'auto', 'core' or 'none'")
    return AUTO[lane] if pin == "auto" else pin == "core"


def pin_current_thread(cpu: int) -> frozenset[int]:
    """Pin the calling thread to `cpu`; returns its affinity as read back from the system.

    Only the calling thread is affected, and threads it starts later. Raises PinningError where
    threads cannot be pinned (all systems but Linux), where the system refuses that CPU, and where
    it says yes but another affinity is read back.
    """
    # Not psutil's cpu_affinity: that one moves the process' main thread, whoever calls it.
    if sys.platform == "linux":
        try:
            os.sched_setaffinity(0, {cpu})
        except (OSError, OverflowError, ValueError) as error:
            message = f"the system refused to pin this thread to CPU {cpu}: {error}"
            raise PinningError(message) from error
        seen = frozenset(os.sched_getaffinity(0))
        if seen != frozenset((cpu,)):
            raise PinningError(
                f"this thread was pinned to CPU {cpu}, but the system says it may run on "
                f"{sorted(seen)}"
            )
        return seen
    else:  # noqa: RET505 - mypy follows sys.platform by branch
        raise PinningError(f"threads cannot be pinned to a CPU on {sys.platform}, only on Linux")


def pin_current_process(cpu: int) -> frozenset[int]:
    """Pin a worker process to `cpu`: every thread it has and will have; returns what was read back.

    Called inside the worker. A thread that starts threads meanwhile may leave some unpinned, so
    call it before any work. Raises PinningError as `pin_current_thread`.
    """
    seen = pin_current_thread(cpu)
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - plain names are all it takes
        try:
            os.sched_setaffinity(int(thread), {cpu})
        except ProcessLookupError:
            continue  # it has ended meanwhile
        except OSError as error:
            message = f"the system refused to pin thread {thread} to CPU {cpu}: {error}"
            raise PinningError(message) from error
    return seen
