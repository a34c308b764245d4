"""Which CPUs this process may use, and how they are arranged.

Two questions, kept apart: which CPUs may we use (`usable_cpus`, the only place that decides it),
and which of them share a physical core (`core_groups`). Nothing is remembered between calls:
affinity and cpuset can change while a process runs.

Environment: `TOKENGATE_CPUS`, a count such as `4`, or a list such as `0,2-5` (a list of one CPU is
written `3-3`), narrows the usable CPUs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

from tokengate.machine.cgroups import cpuset as cgroup_cpuset
from tokengate.machine.lists import format_cpus, is_number, parse_cpus

__all__ = [
    "affinity",
    "allowed_cpus",
    "core_for_worker",
    "core_groups",
    "count_cores",
    "groups",
    "narrowed",
    "override",
    "physical_cores",
    "spread_cpus",
    "usable_cpus",
    "within_cpuset",
]

_ROOT = Path("/")


def override() -> str:
    """What `TOKENGATE_CPUS` says, unchecked; empty: nothing."""
    return os.environ.get("TOKENGATE_CPUS", "").strip()


def allowed_cpus(*, root: Path = _ROOT) -> tuple[int, ...]:
    """CPU ids the system allows this process, ascending, never empty: its affinity and cpuset."""
    return within_cpuset(affinity(), cgroup_cpuset(root))


def within_cpuset(given: tuple[int, ...], cpuset: frozenset[int] | None) -> tuple[int, ...]:
    """The affinity less what the cpuset does not have."""
    # Linux has done that already, some sandboxes have not. Of two that have nothing in common the
    # affinity is what the scheduler goes by.
    both = given if cpuset is None else tuple(cpu for cpu in given if cpu in cpuset)
    return both or given


def usable_cpus(*, root: Path = _ROOT) -> tuple[int, ...]:
    """CPU ids this process may use, ascending, never empty: affinity, cpuset, `TOKENGATE_CPUS`.

    A quota takes time, not CPUs, and has no part in it: see `snapshot`. `root` is where `proc` and
    `sys` are found. Raises ValueError if `TOKENGATE_CPUS` is malformed or asks for more than the
    system allows.
    """
    return narrowed(allowed_cpus(root=root), override(), root)


def narrowed(allowed: tuple[int, ...], text: str, root: Path) -> tuple[int, ...]:
    """Those of the CPUs that a value of `TOKENGATE_CPUS` leaves; errors as `usable_cpus`."""
    if not text:
        return allowed
    if is_number(text):
        count = int(text)
        if not 1 <= count <= len(allowed):
            raise ValueError(
                f"TOKENGATE_CPUS={text!r} asks for {count} CPUs; "
                f"this process may use 1 to {len(allowed)} (CPUs {format_cpus(allowed)})"
            )
        return tuple(sorted(_spread(groups(allowed, root))[:count]))
    try:
        wanted = parse_cpus(text)
    except ValueError as error:
        raise ValueError(
            f"TOKENGATE_CPUS={text!r}: {error}; "
            "give a count such as '4' or a list of CPU ids such as '0,2-5'"
        ) from None
    if not wanted <= set(allowed):
        raise ValueError(
            f"TOKENGATE_CPUS={text!r} names CPUs {format_cpus(wanted - set(allowed))}, "
            f"which this process may not use (it may use {format_cpus(allowed)})"
        )
    return tuple(sorted(wanted))


def core_groups(*, root: Path = _ROOT) -> tuple[tuple[int, ...], ...]:
    """The usable CPUs by physical core, in order of each core's first CPU.

    Where the system does not tell which CPUs share a core, each is taken for a core of its own.
    """
    return groups(usable_cpus(root=root), root)


def physical_cores(*, root: Path = _ROOT) -> int:
    """Number of physical cores among the usable CPUs, at least 1."""
    return count_cores(core_groups(root=root), root)


def count_cores(cores: tuple[tuple[int, ...], ...], root: Path) -> int:
    """How many physical cores those are that `core_groups` has found."""
    if any(len(core) > 1 for core in cores) or _siblings(cores[0][0], root):
        return len(cores)
    # No siblings to read here (macOS, Windows): the machine's own number is an upper bound.
    return min(psutil.cpu_count(logical=False) or len(cores), len(cores))


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


def affinity() -> tuple[int, ...]:
    """CPU ids the system allows this process, ascending; all of them where it knows no affinity."""
    if sys.platform == "linux":
        # By process id, that is the main thread: 0 would be the caller, even a pinned worker.
        return tuple(sorted(os.sched_getaffinity(os.getpid())))
    else:  # noqa: RET505 - mypy follows sys.platform by branch
        ask = getattr(psutil.Process(), "cpu_affinity", None)  # not on macOS
        if ask is not None:
            return tuple(sorted(ask()))
        count = getattr(os, "process_cpu_count", os.cpu_count)  # process_cpu_count: Python 3.13
        return tuple(range(count() or 1))


def _siblings(cpu: int, root: Path) -> frozenset[int]:
    """CPU ids on the same physical core, `cpu` included; empty where the system does not say."""
    topology = root / "sys/devices/system/cpu" / f"cpu{cpu}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is Linux before 5.3
        try:
            return parse_cpus((topology / name).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            continue
    return frozenset()


def groups(cpus: tuple[int, ...], root: Path) -> tuple[tuple[int, ...], ...]:
    """These CPUs by physical core, in order of each core's first CPU."""
    left = set(cpus)
    found: list[tuple[int, ...]] = []
    for cpu in cpus:
        if cpu in left:
            group = (_siblings(cpu, root) | {cpu}) & left
            left -= group
            found.append(tuple(sorted(group)))
    return tuple(found)


def _spread(groups: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    rounds = range(max(len(group) for group in groups))
    return tuple(group[i] for i in rounds for group in groups if i < len(group))
