"""Large buffers of one process that parent and worker read where they lie, in each other's hands.

Sent through a pipe, they would be copied into the system and out of it again. Whoever lends a
buffer holds it until the other side has copied it, or can do so no more.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque

__all__ = ["Loans"]


class Loans:
    """What one carrier and its worker lend each other. For the carrier, but for `theirs`."""

    def __init__(self) -> None:
        self.theirs: socket.socket  # the worker hears on it
        self._ours, self.theirs = socket.socketpair()
        self._lent: deque[list[memoryview]] = deque()

    def lend(self, views: list[memoryview]) -> None:
        """Hold what the next frame says the place of. Any thread that may send one."""
        self._lent.append(views)

    def taken(self, frames: int) -> None:
        """The worker has copied what so many frames lent it."""
        with contextlib.suppress(IndexError):  # it has said so, and ended before it was heard
            for _ in range(frames):
                self._lent.popleft()

    def settle(self) -> None:
        """What the worker's last reply lent has been copied: it may let go."""
        self._ours.send(b".")

    def let_go(self) -> None:
        """Nothing that the worker lends is read from now on. Again does nothing."""
        with contextlib.suppress(OSError):  # it is gone
            self._ours.shutdown(socket.SHUT_RDWR)

    def over(self) -> None:
        """The worker reads nothing any more. On its thread."""
        self._lent.clear()

    def close(self) -> None:
        """The carrier is done with it."""
        self._ours.close()
