"""What a coordinator is told when it is made: the values, checked."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Literal, TypeAlias

from tokengate import machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokengate.machine.pinning import Pin
    from tokengate.profile import LaneProfile, Profile

__all__ = [
    "ProfileSource",
    "check_reason",
    "checked_seconds",
    "count_or_none",
    "lag_target_s",
    "pin_of",
    "profile_and_place",
    "thread_count",
    "worker_count",
]

ProfileSource: TypeAlias = str | os.PathLike[str] | Literal[True]
"""The file of a profile; True: the one of this machine and this Python in the default folder."""


def profile_and_place(source: ProfileSource) -> tuple[Profile, Path] | None:
    """The profile a user asked for and its file; None where there is none to be found."""
    from tokengate.profile import requested_profile  # json and the like, for those who have one

    return requested_profile(source)


def pin_of(lane: str, pin: Pin, profiled: Mapping[str, LaneProfile]) -> Pin:
    """What holds for one lane: what was said, else what its profile says."""
    return profiled[lane].pin if pin == "auto" and lane in profiled else pin


def thread_count(thread_workers: int | None) -> int:
    """Threads that may exist."""
    if thread_workers is None:
        return machine.default_thread_workers()
    return worker_count("thread_workers", thread_workers)


def count_or_none(name: str, workers: int | None) -> int | None:
    """As `worker_count`, for a setting that may be left to the machine."""
    return None if workers is None else worker_count(name, workers)


def worker_count(name: str, workers: int) -> int:
    """A number of workers; TypeError or ValueError, naming the setting, for what is none."""
    if not isinstance(workers, int) or isinstance(workers, bool):
        raise TypeError(f"{name}={workers!r}: expected a whole number or None")
    if not 1 <= workers <= 4096:
        raise ValueError(f"{name}={workers!r}: expected 1 to 4096, or None")
    return workers


def lag_target_s(value: float | None) -> float:
    """Seconds; 0.0 for None."""
    if value is None:
        return 0.0
    expected = "expected a positive, finite number of seconds, or None"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"loop_lag_target={value!r}: {expected}")
    if not 0 < value < float("inf"):
        raise ValueError(f"loop_lag_target={value!r}: {expected}")
    return min(float(value), threading.TIMEOUT_MAX)


def check_reason(reason: str) -> None:
    """TypeError for a reason to end tokens that is no text."""
    if not isinstance(reason, str):
        raise TypeError(f"reason={reason!r}: expected a string that says why")


def checked_seconds(name: str, value: float) -> float:
    """Seconds, 0 or more, as long as a lock can wait; TypeError or ValueError that names it."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected seconds as a number")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}={value!r}: expected a finite number of seconds, 0 or more")
    return float(min(value, threading.TIMEOUT_MAX))
