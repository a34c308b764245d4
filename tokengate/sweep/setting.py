"""One combination of lane, workers, calls in flight and pinning; the grid of all to be tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokengate.lanes.catalogue import LANES
from tokengate.machine.pinning import Pin

__all__ = ["Setting", "default_in_flight", "default_workers", "grid"]

THREADS_PER_CPU = 4
"""Of the default grid. Threads that wait need no CPU, hence more of them for calls that wait."""
WAITING_THREADS_PER_CPU = 32
WORKERS_PER_CPU = 2
"""Of the other lanes: their workers compute, and more of them than CPUs gain little."""
IN_FLIGHT_PER_CPU = (4, 16, 64)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a sweep varies. Ordered by what it costs, see `cost`."""

    lane: str
    workers: int
    """The most the lane may have."""
    in_flight: int
    """Calls that are made and not yet answered, all the time."""
    pin: Pin

    @property
    def cost(self) -> tuple[int, int, int, bool]:
        """Of two settings the smaller one has the smaller cost.

        First the lane, in the order of the catalogue - in the thread lane nothing has to travel,
        a process takes most memory -, then workers, then calls in flight, then pinning.
        """
        return LANES.index(self.lane), self.workers, self.in_flight, self.pin == "core"

    def __str__(self) -> str:
        text = f"{self.lane} lane, {self.workers} worker{'s' if self.workers != 1 else ''}, "
        return (
            text + f"{self.in_flight} in flight" + ("" if self.pin == "auto" else f", {self.pin}")
        )


def default_workers(lane: str, cpus: int, waits: bool) -> tuple[int, ...]:
    """Numbers of workers to try: 1, 2, 4 ... waits: most calls wait instead of computing."""
    if lane == "thread":
        most = cpus * (WAITING_THREADS_PER_CPU if waits else THREADS_PER_CPU)
    else:
        most = cpus * WORKERS_PER_CPU
    step = 2 if waits and lane == "thread" else 1
    return tuple(1 << power for power in range(0, most.bit_length(), step))


def default_in_flight(cpus: int) -> tuple[int, ...]:
    """Numbers of calls in flight to try."""
    return tuple(cpus * each for each in IN_FLIGHT_PER_CPU)


def grid(
    workers: dict[str, Sequence[int]], in_flight: Sequence[int], pins: Sequence[Pin]
) -> tuple[Setting, ...]:
    """All settings, without those that have more workers than calls in flight: some would idle.

    workers: for each lane. ValueError if no setting is left.
    """
    settings = {
        Setting(lane, count, calls, pin)
        for lane, counts in workers.items()
        for count in counts
        for calls in in_flight
        for pin in pins
        if count <= calls
    }
    if not settings:
        raise ValueError(
            f"no setting is left: all numbers of workers are above the most calls in flight, "
            f"{max(in_flight)}"
        )
    return tuple(sorted(settings, key=lambda setting: setting.cost))
