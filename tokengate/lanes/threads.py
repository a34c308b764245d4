"""The thread lane: daemon threads that wait without the GIL and run tokens one after another."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from tokengate import topology
from tokengate._core import Keeper, Worker
from tokengate.lanes.base import LaneThread

__all__ = ["ThreadLane"]


class ThreadLane:
    """Worker threads of one coordinator.

    prefix: start of the threads' names. pin: whether each worker is bound to one core. The core
    starts the threads, as daemons, so that a function that never returns cannot keep the
    interpreter from exiting. All methods may be called from any thread; only `join` blocks.
    """

    name = "thread"

    def __init__(self, prefix: str, pin: bool) -> None:
        self.prefix = prefix
        self.pin = pin
        # The core appends a worker when it starts its thread; the worker takes itself out again.
        self.workers: list[LaneThread] = []
        self._lock = threading.Lock()  # guards taking out, and what is below
        self._on_empty: list[Callable[[], None]] = []

    def started(self, worker: LaneThread) -> None:
        """First thing on a worker's thread, and on those of the two that run no tokens."""
        if not isinstance(worker, Worker):
            role = "keeper" if isinstance(worker, Keeper) else "deadlines"
            threading.current_thread().name = f"{self.prefix}-{role}"
            return
        threading.current_thread().name = f"{self.prefix}-{worker.index}"
        # as threading.Thread does: debuggers, coverage and profilers count on it
        if (trace := threading.gettrace()) is not None:
            sys.settrace(trace)
        if (profile := threading.getprofile()) is not None:
            sys.setprofile(profile)
        if self.pin:
            topology.pin_current_thread(topology.core_for_worker(worker.index))

    def exited(self, worker: LaneThread) -> None:
        """Last thing on a worker's thread."""
        # Such threads stay in threading's books for good before Python 3.13.
        with threading._active_limbo_lock:  # type: ignore[attr-defined]
            threading._active.pop(threading.get_ident(), None)  # type: ignore[attr-defined]
        with self._lock:
            if worker in self.workers:
                self.workers.remove(worker)
            waiting = self._on_empty if not self.workers else []
            if waiting:
                self._on_empty = []
        for notify in waiting:
            notify()

    def on_empty(self, notify: Callable[[], None]) -> None:
        """Call `notify()` once no worker is left, from the last one; at once if none is."""
        with self._lock:
            if self.workers:
                self._on_empty.append(notify)
                return
        notify()

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all workers have ended; False if some have not."""
        empty = threading.Event()
        self.on_empty(empty.set)
        try:
            return empty.wait(timeout)
        finally:
            self.off_empty(empty.set)

    def off_empty(self, notify: Callable[[], None]) -> None:
        """Take an `on_empty` back; nothing happens if it has been called already."""
        with self._lock:
            if notify in self._on_empty:
                self._on_empty.remove(notify)

    def forget(self) -> None:
        """In a forked child: none of the workers exists here."""
        self._lock = threading.Lock()
        self.workers.clear()
        self._on_empty = []
