"""What executes right now, told for people: for stuck functions and curious operators."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from time import monotonic_ns
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from tokengate._core import Carrier

if TYPE_CHECKING:
    from tokengate.coordinator import Coordinator
    from tokengate.lanes.base import LaneThread
    from tokengate.token import Token

__all__ = ["describe", "dump_tokens", "executing_tokens"]


def executing_tokens(workers: Iterable[LaneThread]) -> list[tuple[Token[Any], LaneThread]]:
    """(token, its worker) of every function that has not returned, oldest first.

    Also of abandoned ones, and of those that wait for a token their worker runs meanwhile.
    """
    found = [(token, worker) for worker in list(workers) for token in worker.tokens]
    found.sort(key=lambda each: each[0].id)
    return found


def describe(found: Iterable[tuple[Token[Any], LaneThread]]) -> list[str]:
    """A paragraph for each: the token, for how long, for whom, and where its function is."""
    frames = sys._current_frames()
    return [_paragraph(token, worker, frames) for token, worker in found]


def _paragraph(token: Token[Any], worker: LaneThread, frames: dict[int, FrameType]) -> str:
    frame = frames.get(worker.thread_ident) if worker.thread_ident is not None else None
    if isinstance(worker, Carrier):
        stack = f"  in {worker.place}\n"  # its thread here only waits
    else:
        stack = "  (no stack)\n" if frame is None else "".join(traceback.format_stack(frame))
    caller = token.caller
    whose = "" if caller is None else f", called by task {caller!r}"
    return f"{token!r}, for {_since(token.timestamps[2]):.1f} s{whose}:\n{stack}"


def _since(moment: int) -> float:
    # not the token's own times: they stop when it ends, and the function may run on
    return (monotonic_ns() - moment) * 1e-9 if moment else 0.0


def dump_tokens(coordinator: Coordinator, workers: Iterable[LaneThread], file: IO[str]) -> None:
    """Write a paragraph for each executing token of a coordinator."""
    found = executing_tokens(workers)
    totals = coordinator.stats().totals
    abandoned = sum(token.abandoned for token, _ in found)
    file.write(
        f"{coordinator!r}: {len(found) - abandoned} tokens executing, {abandoned} abandoned, "
        f"{totals.waiting + totals.admitted} waiting\n"
    )
    for (token, _), told in zip(found, describe(found), strict=True):
        age = _since(token.timestamps[0])
        file.write(f"\n{told.rstrip()}\n  created {age:.1f} s ago\n")
