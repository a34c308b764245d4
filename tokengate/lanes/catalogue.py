"""Which lanes there are, and how each is opened. What a lane needs is imported when it is used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tokengate import _core
from tokengate.errors import LaneUnavailable
from tokengate.lanes.availability import check_interpreter

if TYPE_CHECKING:
    from tokengate.lanes.remote import Launcher, RemoteLane

__all__ = ["LANES", "enter_worker", "inside_worker", "open_lane", "require_lane"]

LANES = ("thread", "process", "interpreter")

_inside = False


def inside_worker() -> bool:
    """True in a worker of another lane: its own guarded calls all run on its threads."""
    return _inside


def enter_worker() -> None:
    """From here on this process is a worker."""
    global _inside
    _inside = True


def require_lane(lane: str) -> None:
    """LaneUnavailable, saying why, for a lane that cannot run here. "auto" always can."""
    if lane == "process" and sys.platform == "win32":
        raise LaneUnavailable(
            "lane='process' needs Linux or macOS: it is not there for Windows yet"
        )
    if lane == "interpreter":
        available, why = check_interpreter()
        if not available:
            raise LaneUnavailable(f"lane='interpreter' is not available here: {why}")
    if lane not in (*LANES, "auto"):
        expected = " or ".join(map(repr, (*LANES, "auto")))
        raise LaneUnavailable(f"lane={lane!r} is not available here; expected {expected}")


def open_lane(home: _core.Core, name: str, prefix: str, workers: int, pinned: bool) -> RemoteLane:
    """A lane for a coordinator; starts nothing yet. LaneUnavailable as `require_lane`."""
    require_lane(name)
    from tokengate.lanes.remote import RemoteLane

    return RemoteLane(home, name, prefix, workers, pinned, _launcher(name))


def _launcher(name: str) -> Launcher:
    if name == "interpreter":
        from tokengate.lanes.interpreters import InterpreterLauncher

        return InterpreterLauncher()
    from tokengate.lanes.processes import ProcessLauncher

    return ProcessLauncher()
