"""What a coordinator asks of a lane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tokengate._core import Core

__all__ = ["Lane"]


class Lane(Protocol):
    """Starts and ends the workers that execute admitted tokens."""

    name: str

    def start_worker(self, core: Core) -> None:
        """Start one more worker, or tell the core that it could not. Any thread; brief."""

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all workers have ended; False if some have not."""
        raise NotImplementedError

    def on_empty(self, notify: Callable[[], None]) -> None:
        """Call `notify()` once no worker is left; at once if none is."""

    def stuck(self) -> list[str]:
        """One paragraph for each worker that still runs a function: the token and its stack."""
        raise NotImplementedError

    def forget(self) -> None:
        """In a forked child: none of the workers exists here."""
