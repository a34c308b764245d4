"""Looks at everything the doctor tells about. What is wrong becomes a finding, not an exception."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tokengate import Coordinator
from tokengate._core import gil_enabled
from tokengate.doctor import versions
from tokengate.doctor.findings import Finding, of_cpus, of_gil, of_limits, of_neighbours
from tokengate.lanes.availability import LaneReport, lane_report
from tokengate.machine import (
    DEFAULT_THREAD_WORKERS,
    PinningError,
    default_thread_workers,
    pin_current_thread,
)
from tokengate.machine.cgroups import Throttling, throttling
from tokengate.machine.snapshot import Topology, topology

__all__ = ["Examination", "examine"]

PATIENCE = 10.0  # s; a token that has not ended by then counts as hung


@dataclass(frozen=True, slots=True)
class Examination:
    """All that was looked at."""

    python: dict[str, str]
    tokengate: dict[str, str]
    packages: dict[str, str | None]
    gil: dict[str, Any]
    """``free_threaded``, ``enabled``, ``switch_interval`` (s)."""
    imported: dict[str, str]
    """What was imported on request, and what came of it."""
    counts: dict[str, int | None]
    """What others say of the number of CPUs; None: not to be had."""
    cpus: Topology | None
    """None: ``TOKENGATE_CPUS`` is wrong, see the findings."""
    throttling: Throttling | None
    pinning: str
    """Whether ``pin="core"`` works, in words."""
    lanes: tuple[LaneReport, ...]
    limits: dict[str, int | None]
    """Soft limits; None: unlimited."""
    findings: tuple[Finding, ...] = field(default=())

    @property
    def healthy(self) -> bool:
        """Whether nothing is an error; there may be warnings."""
        return not any(finding.level == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, ready for JSON."""
        return {**asdict(self), "healthy": self.healthy}


def examine(modules: Sequence[str] = (), *, root: Path = Path("/")) -> Examination:
    """Look at this process and the machine; imports `modules` first. Takes less than a second.

    root: where ``proc`` and ``sys`` are found, for tests.
    """
    findings: list[Finding] = []
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    imported = {module: _import(module, free_threaded, findings) for module in modules}
    packages = versions.neighbours()
    gil: dict[str, Any] = {
        "free_threaded": free_threaded,
        "enabled": gil_enabled(),
        "switch_interval": sys.getswitchinterval(),
    }
    throttled = throttling(root)
    cpus: Topology | None = None
    try:
        cpus = topology(root=root)
    except ValueError as error:
        advice = "Correct or remove it: until then no coordinator can be made."
        findings.append(Finding("error", "override-wrong", f"{error}.", advice))
    else:
        findings += of_cpus(cpus, throttled)
        _try_threads(findings)
    try:
        default_thread_workers()
    except ValueError as error:
        advice = (
            "Correct or remove it: until then Coordinator() needs thread_workers, and the default "
            f"coordinator goes by {DEFAULT_THREAD_WORKERS}."
        )
        findings.append(Finding("error", "workers-wrong", f"{error}.", advice))
    findings += of_gil(free_threaded, gil["enabled"], gil["switch_interval"])
    findings += of_neighbours(free_threaded, packages)
    limits = _limits()
    findings += of_limits(limits, _privileged())
    findings.sort(key=lambda finding: finding.level != "error")  # stable: errors first
    return Examination(
        python=versions.python(),
        tokengate=versions.tokengate(),
        packages=packages,
        gil=gil,
        imported=imported,
        counts=_counts(),
        cpus=cpus,
        throttling=throttled,
        pinning=_try_pinning(cpus),
        lanes=lane_report(),
        limits=limits,
        findings=tuple(findings),
    )


def _import(module: str, free_threaded: bool, findings: list[Finding]) -> str:
    before = gil_enabled()
    try:
        importlib.import_module(module)
    except BaseException as error:  # it may do anything, exit included
        if isinstance(error, KeyboardInterrupt):
            raise
        told = f"{type(error).__name__}: {error}"
        what = f"Importing {module} failed with {told}."
        findings.append(Finding("error", "import-failed", what, "See that it can be imported."))
        return f"failed: {told}"
    if free_threaded and gil_enabled() and not before:
        what = f"Importing {module} switched the GIL on: some extension module in it needs it."
        advice = "Use a release of it that supports free threading; until then threads take turns."
        findings.append(Finding("warning", "import-switched-gil-on", what, advice))
        return "switched the GIL on"
    return "ok"


def _try_threads(findings: list[Finding]) -> None:
    """Runs a token, as a user would."""
    try:
        with Coordinator(thread_workers=1, name="doctor", stop_timeout=PATIENCE) as coordinator:
            coordinator.submit(sum, [1, 2]).result(PATIENCE)
    except Exception as error:
        what = f"The thread lane could not run a token: {type(error).__name__}: {error}."
        advice = "If the limits below look right, this is a bug in TokenGate: please report it."
        findings.append(Finding("error", "thread-lane-broken", what, advice))


def _try_pinning(cpus: Topology | None) -> str:
    """Pins a thread of its own to every usable CPU, and reads back where it is."""
    if cpus is None:
        return "not tried: TOKENGATE_CPUS is wrong"
    outcome: list[str] = []

    def pin() -> None:
        try:
            for cpu in cpus.cpus:
                pin_current_thread(cpu)
        except PinningError as error:
            outcome.append(f"does not work: {error}")
        else:
            outcome.append(f"works on all {len(cpus.cpus)} usable CPUs, as read back")

    thread = threading.Thread(target=pin, name="doctor-pinning")
    thread.start()
    thread.join()
    return outcome[0]


def _counts() -> dict[str, int | None]:
    process = getattr(os, "process_cpu_count", None)  # from Python 3.13 on
    return {
        "os.cpu_count()": os.cpu_count(),
        "os.process_cpu_count()": None if process is None else process(),
        "psutil.cpu_count()": psutil.cpu_count(),
        "psutil.cpu_count(logical=False)": psutil.cpu_count(logical=False),
    }


def _limits() -> dict[str, int | None]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    found: dict[str, int | None] = {}
    for name in ("nofile", "nproc"):
        which = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if which is not None:
            soft, _ = resource.getrlimit(which)
            found[name] = None if soft == resource.RLIM_INFINITY else soft
    return found


def _privileged() -> bool:
    return getattr(os, "geteuid", lambda: 1)() == 0
