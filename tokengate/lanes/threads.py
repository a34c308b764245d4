"""The thread lane: daemon threads that wait without the GIL and run tokens one after another."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from time import monotonic
from types import FunctionType
from typing import Any

from tokengate import machine
from tokengate._core import Carrier, Keeper, Worker
from tokengate.lanes.base import LaneThread

__all__ = ["ThreadLane", "join_leaving"]

LEAVING = 1.0  # s; so long a thread on its way out is waited for, whatever the timeout

# Threads that have done their last work here and are on their way out of the interpreter. One that
# is still on it while the interpreter is torn down may be stopped there with a lock of the
# interpreter's own in its hands, which the end of the process then waits for (seen on a
# free-threaded 3.13). So whoever stops waits for them, too.
_leaving: list[Any] = []
_leaving_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leaving_lock._at_fork_reinit)  # type: ignore[attr-defined]


def join_leaving(timeout: float) -> None:
    """Wait up to `timeout` seconds until every thread that has left a lane has really ended."""
    deadline = monotonic() + timeout
    with _leaving_lock:
        leaving = _leaving.copy()
    for handle in leaving:
        handle.join(max(0.0, deadline - monotonic()))


def _leave(handle: Any) -> None:
    if handle is None:  # before Python 3.13 there is nothing to wait with
        return
    with _leaving_lock:
        _leaving[:] = [each for each in _leaving if not each.is_done()]
        _leaving.append(handle)


def _untracked(thread: threading.Thread) -> None:
    """Stands in for what has threading take a thread out of its books by itself."""


class _Entry:
    """How threading makes the object for a thread it did not start, without a finalizer."""

    def __init__(self) -> None:
        self._dummy: Any = threading._DummyThread
        self._lock: Any = threading._active_limbo_lock  # type: ignore[attr-defined]
        make = self._dummy.__init__
        names = make.__globals__ | {"_DeleteDummyThreadOnDel": _untracked}
        self._make = FunctionType(make.__code__, names, None, make.__defaults__, make.__closure__)

    def holds(self) -> bool:
        """Whether it is still so: a forked child has another lock."""
        lock = threading._active_limbo_lock  # type: ignore[attr-defined]
        return lock is self._lock and threading._DummyThread is self._dummy

    def make(self) -> threading.Thread:
        thread: threading.Thread = self._dummy.__new__(self._dummy)
        self._make(thread)
        return thread


_entry = _Entry()


def _enter_books(name: str) -> threading.Thread:
    """The object that stands for this thread in threading's books, until `_leave_books`.

    From Python 3.12 on threading takes it out by itself when the thread's state is cleared, under
    a lock of its own. For a thread of ours that may be done by the main thread, while the
    interpreter is torn down or in a forked child, where whoever had the lock never gives it back
    (a child has a new one, but that finalizer keeps to the old). So it is made without. (To call
    the finalizer off by giving it another class is no way: without a GIL that stops all threads,
    and a fork meanwhile leaves a child in which the next one who stops them waits for ever.)
    """
    global _entry
    books: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]
    thread = books.get(threading.get_ident())
    if thread is None:
        if not _entry.holds():
            _entry = _Entry()
        thread = _entry.make()
    thread.name = name
    return thread


def _leave_books() -> None:
    # without threading's lock, for the same reason; it is one step of the dict's
    threading._active.pop(threading.get_ident(), None)  # type: ignore[attr-defined]


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
            if isinstance(worker, Carrier):
                role = f"carrier-{worker.index}"
            _enter_books(f"{self.prefix}-{role}")
            return
        thread = _enter_books(f"{self.prefix}-{worker.index}")
        # The interpreter does not wait for this one in any case. It has to wait for threads that a
        # function starts, as it does for those started in a thread pool: they take this over.
        thread._daemonic = False  # type: ignore[attr-defined]
        # as threading.Thread does: debuggers, coverage and profilers count on it
        if (trace := threading.gettrace()) is not None:
            sys.settrace(trace)
        if (profile := threading.getprofile()) is not None:
            sys.setprofile(profile)
        if self.pin:
            machine.pin_current_thread(machine.core_for_worker(worker.index))

    def exited(self, worker: LaneThread) -> None:
        """Last thing on a worker's thread, or of one that only visited somebody else's."""
        if not (isinstance(worker, Worker) and worker.visits):
            _leave_books()
        with self._lock:
            if worker in self.workers:
                self.workers.remove(worker)
            waiting = self._on_empty if not self.workers else []
            if waiting:
                self._on_empty = []
        _leave(worker.handle)
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
        deadline = monotonic() + timeout
        empty = threading.Event()
        self.on_empty(empty.set)
        try:
            if not empty.wait(timeout):
                return False
        finally:
            self.off_empty(empty.set)
        join_leaving(max(LEAVING, deadline - monotonic()))
        return True

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
