"""On what a run was measured: the Python, its GIL, the cores, the workers."""

from __future__ import annotations

import platform
import sys
import sysconfig
from dataclasses import dataclass

from tokengate import __version__
from tokengate.machine import physical_cores, usable_cpus


@dataclass(frozen=True, slots=True)
class Environment:
    """What a reader must know to compare two runs."""

    tokengate: str
    python: str
    gil: str
    system: str
    usable_cpus: int
    physical_cores: int
    """That the usable CPUs belong to."""
    workers: str
    """The lane and its workers, in words."""

    def describe(self) -> str:
        """All of it in one line."""
        cpus = f"{self.usable_cpus} usable CPU{'s' if self.usable_cpus != 1 else ''}"
        cores = f"{self.physical_cores} physical core{'s' if self.physical_cores != 1 else ''}"
        return f"{self.python}, {self.gil}; {self.system}, {cpus} ({cores}); {self.workers}"


def observe(workers: str) -> Environment:
    """The environment of this process."""
    return Environment(
        tokengate=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        gil=_gil(),
        system=f"{platform.system()} {platform.machine()}",
        usable_cpus=len(usable_cpus()),
        physical_cores=physical_cores(),
        workers=workers,
    )


def _gil() -> str:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "with the GIL"
    # A free-threaded build turns the GIL on when an extension that needs it is imported.
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    return "free-threaded build with the GIL on" if enabled else "free-threaded, no GIL"
