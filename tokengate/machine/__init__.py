"""The CPUs that are really ours: which, how arranged, how much of them, and threads bound to them.

- `lists`: lists of CPU ids as the system writes them, ``0,2-5``
- `cgroups`: what control groups leave to this process: cpuset, quota, throttled time
- `layout`: the usable CPUs and the physical cores they belong to
- `snapshot`: all of it at one moment, `tokengate.topology()`; how many workers follow from it
- `pinning`: binding a thread or a worker process to one CPU

The public name is the function `tokengate.topology`; our own modules import from here. Any thread
may call any function of this package; none blocks beyond reading small files of the system.
"""

from __future__ import annotations

from tokengate.machine.cgroups import watched_files
from tokengate.machine.layout import (
    core_for_worker,
    core_groups,
    physical_cores,
    spread_cpus,
    usable_cpus,
)
from tokengate.machine.pinning import (
    PinningError,
    is_pinned,
    pin_current_process,
    pin_current_thread,
)
from tokengate.machine.snapshot import (
    DEFAULT_THREAD_WORKERS,
    MAX_THREAD_WORKERS,
    Topology,
    asked_thread_workers,
    cpu_count,
    cpu_count_without_override,
    default_thread_workers,
    topology,
)

__all__ = [
    "DEFAULT_THREAD_WORKERS",
    "MAX_THREAD_WORKERS",
    "PinningError",
    "Topology",
    "asked_thread_workers",
    "core_for_worker",
    "core_groups",
    "cpu_count",
    "cpu_count_without_override",
    "default_thread_workers",
    "is_pinned",
    "physical_cores",
    "pin_current_process",
    "pin_current_thread",
    "spread_cpus",
    "topology",
    "usable_cpus",
    "watched_files",
]
