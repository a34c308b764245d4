"""What the doctor has to say: each finding is a fact, what it costs, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tokengate.doctor.versions import is_older
from tokengate.machine.cgroups import Throttling
from tokengate.machine.lists import format_cpus
from tokengate.machine.snapshot import Topology

__all__ = ["Finding", "Level", "of_cpus", "of_gil", "of_limits", "of_neighbours"]

Level = Literal["error", "warning"]

LEAST_FILES = 1024  # open files: a worker or a connection takes one or two, and so do loops
LEAST_PROCESSES = 256  # threads and processes of one user: 64 workers, and as many for others
SLOW_SWITCH = 0.020  # s; four times Python's own
FAST_SWITCH = 0.000_5
UVLOOP = (0, 23)  # older ones can lose wake-ups on free-threaded builds


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth saying."""

    level: Level
    """error: something does not work; warning: it works, but not as well as it could."""
    name: str
    """Stays the same from version to version, for programs."""
    what: str
    advice: str


def of_cpus(cpus: Topology, throttled: Throttling | None) -> Iterator[Finding]:
    """About CPUs and quota."""
    if cpus.quota is not None and cpus.quota < len(cpus.cpus):
        if cpus.override is None:
            yield Finding(
                "warning",
                "quota-below-cpus",
                f"The quota gives {cpus.quota:g} CPUs of time, but {_cpus(len(cpus.cpus))} can be "
                "seen. TokenGate goes by the quota; libraries that count CPUs start too many "
                "threads, use the quota up at once, and everything stands still until it is "
                "renewed.",
                "Set OMP_NUM_THREADS and the like to "
                f"{max(1, int(cpus.quota))}, or raise the quota.",
            )
        else:
            yield Finding(
                "warning",
                "override-above-quota",
                f"TOKENGATE_CPUS={cpus.override!r} asks for {_cpus(cpus.count)}, the quota gives "
                f"{cpus.quota:g} CPUs of time. Everything stands still whenever it is used up.",
                "Take TOKENGATE_CPUS away, unless the quota is meant to be exceeded for short.",
            )
    if throttled is not None and throttled.periods:
        yield Finding(
            "warning",
            "throttled",
            f"The control group has been stopped in {throttled.periods} periods, for "
            f"{throttled.seconds:.1f} s in all, since it was made: its quota ran out.",
            "If that number grows while you watch, the process is slow because of its quota.",
        )
    if cpus.count == 1:
        yield Finding(
            "warning",
            "one-cpu",
            f"There is one CPU to use (decided by: {cpus.source}). Nothing runs in parallel here, "
            "in whatever lane.",
            "Use threads for what blocks; do not expect CPU-bound work to gain from workers.",
        )
    if cpus.override is None and set(cpus.affinity) != set(cpus.cpus):
        missing = format_cpus(set(cpus.affinity) - set(cpus.cpus))
        yield Finding(
            "warning",
            "affinity-outside-cpuset",
            f"The affinity names CPUs {missing}, which the cpuset does not have.",
            "The container's own view of its CPUs is not to be trusted; TokenGate uses what both "
            "have.",
        )


def of_gil(free_threaded: bool, enabled: bool, switch: float) -> Iterator[Finding]:
    """About the GIL and its switch interval."""
    if free_threaded and enabled:
        forced = os.environ.get("PYTHON_GIL") == "1"
        yield Finding(
            "warning",
            "gil-switched-on",
            "This is a free-threaded Python, but the GIL is on, by "
            + ("PYTHON_GIL=1." if forced else "-X gil=1, or an extension module.")
            + " Threads take turns.",
            "Take PYTHON_GIL away."
            if forced
            else "Find the module with `doctor --import NAME`, and use a release of it that "
            "supports free threading; PYTHON_GIL=0 forces the GIL off at your own risk.",
        )
    if enabled and switch > SLOW_SWITCH:
        yield Finding(
            "warning",
            "switch-interval-long",
            f"The switch interval is {switch * 1e3:g} ms (Python's own: 5 ms): a thread that wants "
            "the GIL, the event loop's too, waits that long for one that computes.",
            "Leave sys.setswitchinterval alone.",
        )
    if enabled and switch < FAST_SWITCH:
        yield Finding(
            "warning",
            "switch-interval-short",
            f"The switch interval is {switch * 1e3:g} ms (Python's own: 5 ms): threads that "
            "compute spend their time on handing the GIL over.",
            "Leave sys.setswitchinterval alone.",
        )


def of_neighbours(free_threaded: bool, found: dict[str, str | None]) -> Iterator[Finding]:
    """About installed packages."""
    uvloop = found.get("uvloop")
    if free_threaded and uvloop is not None and is_older(uvloop, UVLOOP):
        wanted = ".".join(map(str, UVLOOP))
        yield Finding(
            "warning",
            "uvloop-old",
            f"uvloop {uvloop} can lose wake-ups on a free-threaded Python: tokens end, but who "
            "awaits them may not hear of it.",
            f'Install uvloop {wanted} or newer (pip install "uvloop>={wanted}"), or use asyncio.',
        )
    if found.get("numpy") is not None and found.get("threadpoolctl") is None:
        yield Finding(
            "warning",
            "no-threadpoolctl",
            "numpy is installed, threadpoolctl is not: in a worker process a numeric library that "
            "is loaded already keeps one thread per CPU.",
            'pip install "py-tokengate[blas]"',
        )


def of_limits(limits: dict[str, int | None], privileged: bool) -> Iterator[Finding]:
    """About the limits of this process; None: unlimited. privileged: it is not bound by nproc."""
    files = limits.get("nofile")
    if files is not None and files < LEAST_FILES:
        yield Finding(
            "warning",
            "few-files",
            f"The process may open {files} files. Workers, loops and connections need one or two "
            "each; what comes next fails with 'Too many open files'.",
            f"Raise it: ulimit -n {LEAST_FILES} or more, LimitNOFILE= for systemd.",
        )
    processes = limits.get("nproc")
    if processes is not None and processes < LEAST_PROCESSES and not privileged:
        yield Finding(
            "warning",
            "few-processes",
            f"This user may have {processes} threads and processes in all. Workers may not start.",
            f"Raise it: ulimit -u {LEAST_PROCESSES} or more, LimitNPROC= for systemd; or set "
            "TOKENGATE_THREAD_WORKERS.",
        )


def _cpus(count: int) -> str:
    return f"{count} CPU{'s' if count != 1 else ''}"
