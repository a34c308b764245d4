"""The calls that a sweep makes: computing, waiting, or both in turn."""

from __future__ import annotations

import time
from typing import Any

from tokengate import Token, task_token_guard
from tokengate.lanes.catalogue import LANES
from tokengate.wave.lanes import LANE_NAMES, on_lane
from tokengate.wave.mix import Arguments, ReferenceTask, TaskMix
from tokengate.wave.tasks import REFERENCE_TASKS

__all__ = ["LOADS", "WAITING", "CyclicMix", "load"]

CYCLE = 240
"""Distinct calls, of which a multiple of all numbers of tasks: each result is computed once, to
compare with."""


@task_token_guard(operation_type="wait", tags={"weight": "light"})
def wait(seconds: float) -> float:
    """Sleep, as a call does that asks another machine; returns `seconds`."""
    time.sleep(seconds)
    return seconds


WAIT_TASK: ReferenceTask[Token[Any]] = ReferenceTask(
    "wait", wait, wait.__wrapped__, lambda i: (0.001 + 0.0005 * (i % 5),)
)

LOADS: dict[str, tuple[ReferenceTask[Token[Any]], ...]] = {
    "python": REFERENCE_TASKS,
    "io": (WAIT_TASK,),
    "mix": (*REFERENCE_TASKS, WAIT_TASK),
}
"""``python``: the four tasks of the wave benchmark, some 150 us of Python each. ``io``: a wait of
1 to 3 ms. ``mix``: these five in turn."""

WAITING = ("io", "mix")
"""Those in which calls wait, so that more threads than CPUs are worth trying."""


class CyclicMix(TaskMix[Token[Any]]):
    """A mix that begins again after `CYCLE` calls, for as many calls as there is time for."""

    def call(self, index: int) -> tuple[ReferenceTask[Token[Any]], Arguments]:
        """The task and the arguments of token `index`."""
        return super().call(index % CYCLE)

    def submit(self, index: int) -> Token[Any]:
        """Create token `index`. Does not block."""
        return super().submit(index % CYCLE)


def load(name: str, lane: str) -> CyclicMix:
    """The calls of one of `LOADS` on a lane; `LaneUnavailable` where it can not run.

    ValueError for a name that none has.
    """
    if name not in LOADS:
        raise ValueError(f"--task {name!r}: expected {', '.join(LOADS)}")
    tasks = on_lane(LOADS[name], lane)
    if lane not in LANES:
        raise ValueError(f"--lane {lane}: it chooses by itself; expected some of {LANE_NAMES}")
    return CyclicMix(tasks)
