"""How every figure is taken: interleaved in one process, garbage collected between trials."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

FULL_ROUNDS = 5
QUICK_ROUNDS = 3


class Missing(Exception):
    """Something a contestant or a section needs is not here; the text says what and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line chose, the same for every section."""

    rounds: int = FULL_ROUNDS
    quick: bool = False
    collector: bool = True
    seed: int = 1
    burst: int = 65_536
    peer_burst: int = 8_192

    def pick(self, full: int, quick: int) -> int:
        """`full`, or `quick` under --quick."""
        return quick if self.quick else full


def interleave(
    trials: Mapping[str, Callable[[], float]], options: Options
) -> dict[str, tuple[float, ...]]:
    """Run every trial once a round, in a new random order each round; samples by name.

    All trials of a round see the same machine, and no contestant always runs in another's wake.
    Before each trial the garbage of the one before is collected; during it the collector is in
    the state the options chose, the same for all. A trial returns its own figure, so that what
    it does before and after its timed stretch is not counted.
    """
    samples: dict[str, list[float]] = {name: [] for name in trials}
    order = list(trials)
    shuffle = random.Random(options.seed).shuffle  # noqa: S311 - an order, not a secret
    with collector(options.collector):
        for number in range(1, options.rounds + 1):
            shuffle(order)
            for name in order:
                progress(f"round {number}/{options.rounds}: {name}")
                gc.collect()
                samples[name].append(trials[name]())
    progress("")
    return {name: tuple(values) for name, values in samples.items()}


@contextmanager
def collector(enabled: bool) -> Iterator[None]:
    """The cyclic garbage collector on or off inside, as it was afterwards."""
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if before else gc.disable)()


def progress(text: str) -> None:
    """Overwrite one live line on a terminal; silent elsewhere. An empty text clears it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text[:110]}")
        sys.stderr.flush()


def gil_enabled() -> bool:
    """Whether this interpreter runs with the GIL (a free-threaded build may run either way)."""
    probe: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return True if probe is None else probe()
