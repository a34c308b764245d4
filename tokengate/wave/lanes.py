"""The calls of a benchmark on a lane of choice, and the coordinator that runs them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from tokengate import Coordinator, GuardedFunction, Stats, Token
from tokengate.lanes.catalogue import LANES, require_lane
from tokengate.machine.pinning import Pin

from .mix import ReferenceTask

__all__ = ["LANE_NAMES", "coordinator_for", "describe_workers", "on_lane"]

LANE_NAMES = ", ".join(LANES)
"""For people; which of them run here is another question."""


def on_lane(
    tasks: Iterable[ReferenceTask[Token[Any]]], lane: str
) -> tuple[ReferenceTask[Token[Any]], ...]:
    """The same tasks, run on `lane`; their `submit` must be guarded functions.

    `LaneUnavailable`, saying why, where that lane can not run.
    """
    require_lane(lane)
    return tuple(
        ReferenceTask(
            task.name,
            cast("GuardedFunction[..., Any]", task.submit).options(lane=lane),
            task.plain,
            task.arguments,
        )
        for task in tasks
    )


def coordinator_for(lane: str, workers: int | None, *, pin: Pin = "auto", name: str) -> Coordinator:
    """A coordinator whose `lane` has at most so many workers; None: as many as it takes by itself.

    ValueError for an impossible number, `LaneUnavailable` for a `pin` the system has not.
    """
    if workers is not None and lane not in LANES:
        raise ValueError(
            f"--workers {workers}: lane {lane!r} has no workers of its own; "
            f"name one of {LANE_NAMES}"
        )
    settings: dict[str, Any] = {} if workers is None else {f"{lane}_workers": workers}
    return Coordinator(pin=pin, name=name, **settings)


def describe_workers(stats: Stats, lane: str) -> str:
    """The workers of a lane that is running, in words."""
    if lane not in LANES:  # it chooses among these
        used = [each for each, found in stats.lanes.items() if found.workers]
        return "; ".join([f"lane {lane}", *(describe_workers(stats, each) for each in used)])
    found = stats.lanes.get(lane)
    if found is None:
        return f"{lane} lane, no workers started"
    words = f"{lane} lane, {found.workers} workers started of at most {found.max_workers}"
    # the active limit of other lanes is not steered: it says nothing more
    return words + (f", up to {found.limit} active at a time" if lane == "thread" else "")
