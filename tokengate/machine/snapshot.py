"""The CPUs of this process at one moment, and how many workers follow from them.

A quota is rounded up: a group that may use 1.5 CPUs gets two workers, which together use all of it;
one would leave a third unused. The exact figure is `Topology.capacity`.

Environment: `TOKENGATE_CPUS` says how many CPUs (a count) or which (a list); a quota is then not
looked at, for whoever sets it knows better. `TOKENGATE_THREAD_WORKERS` sets the number of thread
workers.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import psutil

from tokengate.machine.cgroups import cpuset as cgroup_cpuset
from tokengate.machine.cgroups import quota as cgroup_quota
from tokengate.machine.layout import (
    affinity,
    count_cores,
    groups,
    narrowed,
    override,
    within_cpuset,
)
from tokengate.machine.lists import is_number

__all__ = [
    "DEFAULT_THREAD_WORKERS",
    "MAX_THREAD_WORKERS",
    "Source",
    "Topology",
    "asked_thread_workers",
    "cpu_count",
    "cpu_count_without_override",
    "default_thread_workers",
    "topology",
]

DEFAULT_THREAD_WORKERS = 64
MAX_THREAD_WORKERS = 4096

Source = Literal["machine", "affinity", "cpuset", "quota", "TOKENGATE_CPUS"]

_ROOT = Path("/")
_FRESH = 1.0  # s; so long `cpu_count` remembers


@dataclass(frozen=True, slots=True)
class Topology:
    """The CPUs this process may use, as they were when `topology` was called.

    CPUs are the system's ids, ascending. SMT siblings are the CPUs of one physical core.
    """

    count: int
    """How many CPUs to make workers for, at least 1: `capacity`, rounded up."""
    capacity: float
    """CPU seconds per second this process can get: its CPUs, or its quota where that is less."""
    source: Source
    """What decided `count`; ``"machine"``: nothing narrows it."""
    cpus: tuple[int, ...]
    """The usable CPUs: affinity and cpuset, narrowed by ``TOKENGATE_CPUS``. Never empty."""
    cores: tuple[tuple[int, ...], ...]
    """The usable CPUs by physical core; each is a core of its own where the system does not say."""
    physical_cores: int
    """Among the usable CPUs, at least 1."""
    machine: int
    """CPUs of the machine as the system counts them, usable or not; at least 1."""
    affinity: tuple[int, ...]
    """CPUs the scheduler may run this process on."""
    cpuset: tuple[int, ...] | None
    """CPUs of the control group; None where there is no such thing."""
    quota: float | None
    """CPU seconds per second of the tightest control group; None: no limit."""
    override: str | None
    """``TOKENGATE_CPUS``, if it is set."""

    @property
    def smt(self) -> bool:
        """Whether two usable CPUs share a physical core."""
        return any(len(core) > 1 for core in self.cores)

    def siblings(self, cpu: int) -> tuple[int, ...]:
        """The usable CPUs on the same core, `cpu` among them. ValueError: it is not usable."""
        for core in self.cores:
            if cpu in core:
                return core
        raise ValueError(f"CPU {cpu!r} is not one of those this process may use, {self.cpus}")

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, ready for JSON."""
        return {**dataclasses.asdict(self), "smt": self.smt}


def topology(*, root: Path = _ROOT) -> Topology:
    """The CPUs this process may use now: which, on what cores, how much of them, and why.

    Reads small files of the system, about half a millisecond on Linux; any thread may call it.
    root: where ``proc`` and ``sys`` are found, for tests. ValueError if ``TOKENGATE_CPUS`` is
    malformed or asks for more than the system allows.
    """
    return _look(override(), root)


def cpu_count_without_override() -> int:
    """What `topology().count` would be if ``TOKENGATE_CPUS`` were not set."""
    return _look("", _ROOT).count


def _look(asked: str, root: Path) -> Topology:
    given = affinity()
    group = cgroup_cpuset(root)
    quota = cgroup_quota(root)
    allowed = within_cpuset(given, group)
    cpus = narrowed(allowed, asked, root)
    cores = groups(cpus, root)
    machine = max(psutil.cpu_count() or os.cpu_count() or 1, len(given))
    capacity = float(len(cpus)) if asked or quota is None else min(quota, float(len(cpus)))
    source: Source = "machine"
    if asked:
        source = "TOKENGATE_CPUS"
    elif capacity < len(cpus):
        source = "quota"
    elif len(cpus) < machine:
        # The system takes the cpuset off the affinity by itself; what is left of it then is equal.
        by_group = group is not None and frozenset(cpus) == group
        source = "cpuset" if by_group or len(cpus) < len(given) else "affinity"
    return Topology(
        count=max(1, ceil(capacity)),
        capacity=capacity,
        source=source,
        cpus=cpus,
        cores=cores,
        physical_cores=count_cores(cores, root),
        machine=machine,
        affinity=given,
        cpuset=None if group is None else tuple(sorted(group)),
        quota=quota,
        override=asked or None,
    )


_last: tuple[float, str, int] = (float("-inf"), "", 1)


def cpu_count() -> int:
    """`topology().count`, at most a second old: for paths that ask again and again.

    ValueError as `topology`. A coordinator whose count may change while it runs is told by its
    keeper, and need not ask.
    """
    global _last
    asked = override()
    when, remembered, count = _last
    if monotonic() - when >= _FRESH or asked != remembered:
        count = topology().count
        _last = (monotonic(), asked, count)  # one assignment: threads see all of it or none
    return count


def asked_thread_workers() -> str:
    """What `TOKENGATE_THREAD_WORKERS` says, unchecked; empty: nothing."""
    return os.environ.get("TOKENGATE_THREAD_WORKERS", "").strip()


def default_thread_workers() -> int:
    """How many workers a thread lane may start: `TOKENGATE_THREAD_WORKERS`, else 64.

    Raises ValueError if the variable is not a whole number from 1 to 4096.
    """
    text = asked_thread_workers()
    if not text:
        return DEFAULT_THREAD_WORKERS
    if not is_number(text) or not 1 <= int(text) <= MAX_THREAD_WORKERS:
        raise ValueError(
            f"TOKENGATE_THREAD_WORKERS={text!r} is not a whole number "
            f"from 1 to {MAX_THREAD_WORKERS}"
        )
    return int(text)
