"""The typed snapshot that `Coordinator.stats()` returns. All durations in seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Any

__all__ = ["Durations", "LaneStats", "LoopLag", "OperationStats", "Stats", "Totals", "merged"]


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took: the last minute, and totals since the coordinator was made.

    `mean`, `max`, `p50`, `p99` and `count` speak of the last 50 to 60 seconds (percentiles within
    5 %); `total_count`, `total_sum` and the cumulative `buckets` (upper bound, how many took at
    most that long) of all time.
    """

    count: int
    mean: float
    max: float
    p50: float
    p99: float
    total_count: int
    total_sum: float
    buckets: list[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class OperationStats:
    """One operation. The first three are gauges, the others count since the coordinator was made.

    `rejected` and `shed` are among `killed`: refused because the queue was full or the coordinator
    stopped, and ended to make room for a newer call. `abandoned_now` is a gauge: functions that run
    on although their token has ended.
    `wait` (creation to start) and `run` (start to finish) cover tokens that completed or failed.
    `lane` is where calls go now (with several: most of them), `lane_reason` why. `lane_advice` says
    what another lane would bring by what was measured; None: nothing that is known, or
    ``lane="auto"``, which goes there by itself.
    """

    waiting: int
    admitted: int
    executing: int
    submitted: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    killed: int
    rejected: int
    shed: int
    abandoned_now: int
    abandoned_total: int
    oldest_wait: float
    wait: Durations
    run: Durations
    lane: str = "thread"
    lane_reason: str = ""
    lane_advice: str | None = None


_MEASURED = ("wait", "run")
_PLACED = ("lane", "lane_reason", "lane_advice")


def merged(one: OperationStats, other: OperationStats) -> OperationStats:
    """An operation that runs in two lanes. Percentiles: those of the lane that ran more of it."""
    values: dict[str, Any] = {}
    for each in fields(OperationStats):
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        if each.name in _PLACED:
            values[each.name] = mine
        elif each.name in _MEASURED:
            values[each.name] = _merged_durations(mine, theirs)
        else:
            values[each.name] = max(mine, theirs) if each.name == "oldest_wait" else mine + theirs
    return OperationStats(**values)


def _merged_durations(one: Durations, other: Durations) -> Durations:
    count = one.count + other.count
    most = one if one.count >= other.count else other
    return Durations(
        count=count,
        mean=(one.mean * one.count + other.mean * other.count) / count if count else 0.0,
        max=max(one.max, other.max),
        p50=most.p50,
        p99=most.p99,
        total_count=one.total_count + other.total_count,
        total_sum=one.total_sum + other.total_sum,
        buckets=[
            (bound, mine + theirs)
            for (bound, mine), (_, theirs) in zip(one.buckets, other.buckets, strict=True)
        ],
    )


@dataclass(frozen=True, slots=True)
class LaneStats:
    """One lane: threads that exist, those not parked, how many may be active, what is queued.

    `queue_depth` counts tokens that wait or are admitted; `cpu_seconds` is the CPU time of its
    workers (where the system tells it per thread: Linux; else 0.0); `wakes` how often a worker was
    woken or started. `limit` is how many may be active now; `cuts` counts how often it was cut
    because an event loop starved or more workers burned CPU than there are CPUs, `last_reason` says
    in words why it was last changed.
    """

    workers: int
    active: int
    max_workers: int
    limit: int
    queue_depth: int
    cpu_seconds: float
    wakes: int
    cuts: int
    last_reason: str


@dataclass(frozen=True, slots=True)
class LoopLag:
    """From waking an event loop to its drain running, over the last minute; the laggiest loop."""

    count: int = 0
    mean: float = 0.0
    max: float = 0.0
    p50: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all operations."""

    waiting: int
    admitted: int
    executing: int
    submitted: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    killed: int
    rejected: int
    shed: int
    abandoned_now: int
    abandoned_total: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What a coordinator is doing, at one moment.

    `loop_busy`: CPU seconds per second that the busiest event loop's thread uses by itself, 0.0 to
    1.0, over about the last second of looking. Lag that comes from it is the loop's own callbacks'
    doing, and never lowers the active limit. `profile`: the file of the profile in force, or None.
    """

    operations: dict[str, OperationStats]
    lanes: dict[str, LaneStats]
    loop_lag: LoopLag
    loop_busy: float
    totals: Totals
    profile: str | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, lists and numbers, ready for `json.dumps`.

        The last bucket of a histogram has no bound: None, for JSON knows no infinity.
        """
        plain = asdict(self)
        for operation in plain["operations"].values():
            for durations in (operation["wait"], operation["run"]):
                durations["buckets"] = [
                    (None if bound == inf else bound, count)
                    for bound, count in durations["buckets"]
                ]
        return plain
