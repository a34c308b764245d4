"""The CPUs this process may use, how many workers they carry, and pinning a thread to one of them.

Two questions, kept apart: which CPUs may we use (`usable_cpus`, the only place that decides it),
and how are they arranged (`core_groups`). All else follows from these two. Nothing is remembered
between calls: affinity can change while a process runs.

Environment: `TOKENGATE_CPUS` (a count such as `4`, or a list such as `0,2-5`; a list of one CPU is
written `3-3`) narrows the usable CPUs; `TOKENGATE_THREAD_WORKERS` sets the number of thread
workers.

Any thread may call any function here; none blocks beyond reading small files of the system.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

__all__ = [
    "DEFAULT_THREAD_WORKERS",
    "MAX_THREAD_WORKERS",
    "PinningError",
    "core_for_worker",
    "core_groups",
    "default_thread_workers",
    "physical_cores",
    "pin_current_thread",
    "spread_cpus",
    "usable_cpus",
]

DEFAULT_THREAD_WORKERS = 64
MAX_THREAD_WORKERS = 4096

_ROOT = Path("/")


class PinningError(OSError):
    """A thread could not be pinned: not available on this system, or refused by it."""


def usable_cpus(*, root: Path = _ROOT) -> tuple[int, ...]:
    """CPU ids this process may use, ascending, never empty: its affinity, less `TOKENGATE_CPUS`.

    `root` is where `sys` is found. Raises ValueError if `TOKENGATE_CPUS` is malformed or asks for
    more than the system allows.
    """
    allowed = _affinity()
    text = os.environ.get("TOKENGATE_CPUS", "").strip()
    if not text:
        return allowed
    if _is_number(text):
        count = int(text)
        if not 1 <= count <= len(allowed):
            raise ValueError(
                f"TOKENGATE_CPUS={text!r} asks for {count} CPUs; "
                f"this process may use 1 to {len(allowed)} (CPUs {_format(allowed)})"
            )
        return tuple(sorted(_spread(_groups(allowed, root))[:count]))
    try:
        wanted = _parse(text)
    except ValueError as error:
        raise ValueError(
            f"TOKENGATE_CPUS={text!r}: {error}; "
            "give a count such as '4' or a list of CPU ids such as '0,2-5'"
        ) from None
    if not wanted <= set(allowed):
        raise ValueError(
            f"TOKENGATE_CPUS={text!r} names CPUs {_format(wanted - set(allowed))}, "
            f"which this process may not use (it may use {_format(allowed)})"
        )
    return tuple(sorted(wanted))


def core_groups(*, root: Path = _ROOT) -> tuple[tuple[int, ...], ...]:
    """The usable CPUs by physical core, in order of each core's first CPU.

    Where the system does not tell which CPUs share a core, each is taken for a core of its own.
    """
    return _groups(usable_cpus(root=root), root)


def physical_cores(*, root: Path = _ROOT) -> int:
    """Number of physical cores among the usable CPUs, at least 1."""
    groups = core_groups(root=root)
    if any(len(group) > 1 for group in groups) or _siblings(groups[0][0], root):
        return len(groups)
    # No siblings to read here (macOS, Windows): the machine's own number is an upper bound.
    return min(psutil.cpu_count(logical=False) or len(groups), len(groups))


def spread_cpus(*, root: Path = _ROOT) -> tuple[int, ...]:
    """The usable CPUs in the order workers take them: one of every core, then the siblings."""
    return _spread(core_groups(root=root))


def core_for_worker(index: int, *, root: Path = _ROOT) -> int:
    """CPU id for worker `index`, from 0: distinct cores first, then their siblings, then again.

    To place many workers read `spread_cpus()` once instead. Raises ValueError for a negative index.
    """
    if index < 0:
        raise ValueError(f"a worker's index is not negative, got {index}")
    order = spread_cpus(root=root)
    return order[index % len(order)]


def default_thread_workers() -> int:
    """How many workers a thread lane may start: `TOKENGATE_THREAD_WORKERS`, else 64.

    Raises ValueError if the variable is not a whole number from 1 to 4096.
    """
    text = os.environ.get("TOKENGATE_THREAD_WORKERS", "").strip()
    if not text:
        return DEFAULT_THREAD_WORKERS
    if not _is_number(text) or not 1 <= int(text) <= MAX_THREAD_WORKERS:
        raise ValueError(
            f"TOKENGATE_THREAD_WORKERS={text!r} is not a whole number "
            f"from 1 to {MAX_THREAD_WORKERS}"
        )
    return int(text)


def pin_current_thread(cpu: int) -> frozenset[int]:
    """Pin the calling thread to `cpu`; returns its affinity as read back from the system.

    Only the calling thread is affected, and threads it starts later. Raises PinningError where
    threads cannot be pinned (all systems but Linux) and where the system refuses that CPU.
    """
    # Not psutil's cpu_affinity: that one moves the process' main thread, whoever calls it.
    if sys.platform == "linux":
        try:
            os.sched_setaffinity(0, {cpu})
        except (OSError, OverflowError, ValueError) as error:
            message = f"the system refused to pin this thread to CPU {cpu}: {error}"
            raise PinningError(message) from error
        return frozenset(os.sched_getaffinity(0))
    else:  # noqa: RET505 - mypy follows sys.platform by branch
        raise PinningError(f"threads cannot be pinned to a CPU on {sys.platform}, only on Linux")


def _affinity() -> tuple[int, ...]:
    """CPU ids the system allows this process, ascending; all of them where it knows no affinity."""
    if sys.platform == "linux":
        # By process id, that is the main thread: 0 would be the caller, even a pinned worker.
        return tuple(sorted(os.sched_getaffinity(os.getpid())))
    else:  # noqa: RET505 - mypy follows sys.platform by branch
        affinity = getattr(psutil.Process(), "cpu_affinity", None)  # not on macOS
        if affinity is not None:
            return tuple(sorted(affinity()))
        count = getattr(os, "process_cpu_count", os.cpu_count)  # process_cpu_count: Python 3.13
        return tuple(range(count() or 1))


def _siblings(cpu: int, root: Path) -> frozenset[int]:
    """CPU ids on the same physical core, `cpu` included; empty where the system does not say."""
    topology = root / "sys/devices/system/cpu" / f"cpu{cpu}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is Linux before 5.3
        try:
            return _parse((topology / name).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            continue
    return frozenset()


def _groups(cpus: tuple[int, ...], root: Path) -> tuple[tuple[int, ...], ...]:
    left = set(cpus)
    groups: list[tuple[int, ...]] = []
    for cpu in cpus:
        if cpu in left:
            group = (_siblings(cpu, root) | {cpu}) & left
            left -= group
            groups.append(tuple(sorted(group)))
    return tuple(groups)


def _spread(groups: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    rounds = range(max(len(group) for group in groups))
    return tuple(group[i] for i in rounds for group in groups if i < len(group))


def _is_number(text: str) -> bool:
    # Nine digits: beyond any sensible number here, and short of Python's limit on conversion.
    return text.isascii() and text.isdigit() and len(text) <= 9


def _parse(text: str) -> frozenset[int]:
    """CPU ids of a list such as `0,2-5`, as the system writes them. Raises ValueError."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not _is_number(first) or (dash and not _is_number(last)):
            raise ValueError(f"{part.strip()!r} is not a CPU id or a range of them")
        low, high = int(first), int(last or first)
        if not low <= high < 65536:
            raise ValueError(f"{part.strip()!r} is not an ascending range of CPU ids")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def _format(cpus: tuple[int, ...] | frozenset[int]) -> str:
    """The reverse of `_parse`, for messages."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
