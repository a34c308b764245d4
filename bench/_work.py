"""Work to dispatch: sleeping, and pure Python counted in iterations that were calibrated once."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

PROBE = 20_000
PROBES = 100


def burn(iterations: int) -> int:
    """Hold the GIL for so many turns of a plain loop; the same number of them, the same result.

    Never by the clock: work that ends when its time is over would end no later on threads that
    keep taking the GIL from each other, and hide just what is looked for.
    """
    value = 0
    for i in range(iterations):
        value = (value * 31 + i) & 0xFFFF
    return value


def job(sleep: float, iterations: int) -> int:
    """Sleep so many seconds, which leaves the GIL to others, then `burn`."""
    if sleep:
        time.sleep(sleep)
    return burn(iterations) if iterations else 0


@functools.cache
def iterations_per_second() -> float:
    """How many turns `burn` makes a second when nothing else runs, measured once a process.

    The best of many short probes, so that other work on the machine does not count as slowness.
    """
    best = float("inf")
    for _ in range(PROBES):
        start = time.perf_counter()
        burn(PROBE)
        best = min(best, time.perf_counter() - start)
    return PROBE / best


def iterations_for(seconds: float) -> int:
    """Turns of `burn` that take so long on an idle machine."""
    return round(seconds * iterations_per_second())


@dataclass(frozen=True, slots=True)
class Workload:
    """So many equal calls at once, each of which sleeps and then runs Python, in seconds."""

    name: str
    count: int
    sleep: float
    python: float

    def arguments(self) -> tuple[float, int]:
        """What `job` is called with."""
        return self.sleep, iterations_for(self.python)


WORKLOADS = (
    Workload("64 x 13 ms of Python", 64, 0, 0.013),
    Workload("640 x 10 ms sleep", 640, 0.010, 0),
    Workload("400 x (3 ms sleep + 2 ms Python)", 400, 0.003, 0.002),
    Workload("8 x 180 ms of Python", 8, 0, 0.180),
)
