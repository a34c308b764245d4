"""A million keys used once: what they hold while their tokens wait, and what is kept of them.

For `fairness.py`, which runs it in a process of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from _cli import main
from _figures import Figure, Section
from _harness import Options, collector
from _policy import guarded
from memory import WORKERS, Gate, Round, Tokens, figures, measure

if TYPE_CHECKING:
    from tokengate import Coordinator

# Bytes from which on a block is a mapping of its own: where glibc begins.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "131072"}

EXPLANATION = """\
The section `memory` with a key for every token that no other has, key_limit=1: bytes while all
of them wait, and what is given back and kept when they have ended, taken as there, in a process
of its own. Run by fairness.py, glibc gives large blocks back there when they are freed (see
ENVIRONMENT). Left to itself it raises the size from which on it does so with each large block
that is freed, here the tables of the operation's dictionary of keys, and keeps up to 64 MiB for
whoever needs memory next: 0.92 of the growth was given back."""


def itself(value: int) -> int:
    """A key for each value."""
    return value


class KeyedTokens(Tokens):
    """Tokens of an operation with a key."""

    def __init__(self, coordinator: Coordinator, gate: Gate) -> None:
        super().__init__(coordinator, gate)
        self._guarded = guarded(coordinator, gate.held, "bench.keyed", key=itself, key_limit=1)


async def measure_keyed(count: int, rounds: int) -> list[Round]:
    """`memory.measure` of tokens with keys."""
    from tokengate import Coordinator

    gate = Gate()
    async with Coordinator(thread_workers=WORKERS, name="bench-keys") as coordinator:
        return await measure(KeyedTokens(coordinator, gate), gate, count, rounds)


def run(options: Options) -> Section:
    """Measure the row of the distinct keys. Meant for a process that has done nothing else."""
    section = Section("keys", EXPLANATION)
    count = options.pick(1_000_000, 200_000)
    with collector(options.collector):
        rounds = asyncio.run(measure_keyed(count, options.rounds))
    section.figures += [of_keys(figure) for figure in figures(count, rounds)]
    return section


def of_keys(figure: Figure) -> Figure:
    """The figure as this section names it; the bound on a waiting token is for one without."""
    what = figure.what.replace("waiting tokens", "waiting tokens with a key of its own")
    target = None if figure.unit == "bytes" and figure.what.startswith("each") else figure.target
    return dataclasses.replace(figure, what=what, target=target)


if __name__ == "__main__":
    raise SystemExit(main({"keys": run}))
