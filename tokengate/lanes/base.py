"""What a coordinator asks of a lane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tokengate._core import Carrier, Keeper, Timekeeper, Worker

__all__ = ["Lane", "LaneThread"]

LaneThread = Worker | Carrier | Keeper | Timekeeper


class Lane(Protocol):
    """Keeps the workers that execute admitted tokens."""

    name: str

    workers: list[LaneThread]  # those that live; the core adds the ones it starts

    def started(self, worker: LaneThread) -> None:
        """First thing a new worker does, on its own thread."""

    def exited(self, worker: LaneThread) -> None:
        """Last thing a worker does, on its own thread."""

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all workers have ended; False if some have not."""
        raise NotImplementedError

    def on_empty(self, notify: Callable[[], None]) -> None:
        """Call `notify()` once no worker is left; at once if none is."""

    def off_empty(self, notify: Callable[[], None]) -> None:
        """Take an `on_empty` back; nothing happens if it has been called already."""

    def forget(self) -> None:
        """In a forked child: none of the workers exists here."""
