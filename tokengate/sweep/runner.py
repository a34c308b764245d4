"""Runs the blocks, each in a random order of its own."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from .measure import Sample
from .record import SweepRun
from .setting import Setting

__all__ = ["Watcher", "order_of_block", "run_blocks"]


class Watcher(Protocol):
    """Is told how a sweep gets on."""

    def begins(self, block: int, setting: Setting) -> None:
        """It is measured next; blocks count from 1."""

    def measured(self, run: SweepRun) -> None:
        """One more was added to the run."""


async def run_blocks(
    run: SweepRun, measure: Callable[[Setting], Awaitable[Sample]], watcher: Watcher
) -> None:
    """Measure every setting once in each block and add it to `run`.

    Cancelling this cancels the measurement under way; what was added stays.
    """
    for block in range(1, run.blocks + 1):
        for setting in order_of_block(run, block):
            watcher.begins(block, setting)
            sample = await measure(setting)
            run.add(setting, sample)
            watcher.measured(run)


def order_of_block(run: SweepRun, block: int) -> list[Setting]:
    """The settings in the order of that block, which follows from the seed and its number.

    Random, so that no setting always follows the same neighbour, or comes when a machine has
    warmed up.
    """
    order = list(run.settings)
    # string seeds are hashed alike on every Python; nothing here is a secret (S311)
    random.Random(f"{run.seed}/{block}").shuffle(order)  # noqa: S311
    return order
