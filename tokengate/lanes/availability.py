"""Which lanes can run here, and what is missing where one can not.

The one place that decides it: `python -m tokengate doctor` tells it, and whoever adds a lane adds
its check to `_CHECKS`. Importing this starts nothing and loads no lane.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass

from tokengate._core import gil_enabled

__all__ = ["LaneReport", "check_interpreter", "lane_report"]

_INTERPRETERS = (3, 14)  # the first Python with concurrent.interpreters


@dataclass(frozen=True, slots=True)
class LaneReport:
    """Whether one lane can run here."""

    lane: str
    available: bool
    why: str
    """What it gives here, or what it needs that is not there."""


def lane_report() -> tuple[LaneReport, ...]:
    """Every lane there is, the default one first. Any thread; blocks no longer than imports do."""
    return tuple(LaneReport(lane, *check()) for lane, check in _CHECKS.items())


def _thread() -> tuple[bool, str]:
    if not gil_enabled():
        return True, "no GIL: Python code runs in parallel"
    return True, "with the GIL: blocking calls and C code overlap, Python code takes turns"


def _process() -> tuple[bool, str]:
    if not _exists("processes"):
        return False, "this version of TokenGate does not have it"
    if sys.platform == "win32":
        return False, "it is not there for Windows yet"
    if sys.platform in ("emscripten", "wasi", "ios", "android"):
        return False, f"{sys.platform} does not let a program start processes of its own"
    return True, "Python code runs in parallel; functions and arguments are pickled"


def check_interpreter() -> tuple[bool, str]:
    """The interpreter lane: whether it runs here, and what it gives or lacks."""
    if sys.version_info < _INTERPRETERS:
        found = f"{sys.version_info.major}.{sys.version_info.minor}"
        wanted = ".".join(map(str, _INTERPRETERS))
        return False, f"it needs CPython {wanted} or newer, this is {found}"
    if sys.platform == "win32":
        return False, "it is not there for Windows yet"
    if importlib.util.find_spec("concurrent.interpreters") is None:
        return False, "this Python was built without concurrent.interpreters"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False, "this is a free-threaded Python, where the thread lane gives the same"
    return True, "Python code runs in parallel; extension modules must allow sub-interpreters"


def _exists(module: str) -> bool:
    return importlib.util.find_spec(f"tokengate.lanes.{module}") is not None


_CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "thread": _thread,
    "process": _process,
    "interpreter": check_interpreter,
}
