"""The thread lane: daemon threads that wait without the GIL and run tokens one after another."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable

from tokengate import topology
from tokengate._core import Core, Worker

__all__ = ["ThreadLane"]


class ThreadLane:
    """Worker threads of one coordinator.

    prefix: start of the threads' names. pin: whether each worker is bound to one core. on_fork:
    called in a forked child whose only thread was one of the workers, before it ends. All methods
    may be called from any thread; only `join` blocks.
    """

    name = "thread"

    def __init__(self, prefix: str, pin: bool, on_fork: Callable[[], None]) -> None:
        self.prefix = prefix
        self._on_fork = on_fork
        self.pin = pin
        self._lock = threading.Lock()  # guards what is below
        self._workers: dict[threading.Thread, Worker] = {}
        self._leaving: list[threading.Thread] = []  # they have done with tokens; not joined yet
        self._on_empty: list[Callable[[], None]] = []

    def start_worker(self, core: Core) -> None:
        """Start one more worker thread; the core hears of it if the system refuses."""
        started, error = self._start(core)
        interrupted = error is not None and not isinstance(error, Exception)
        if interrupted and not started:
            started, _ = self._start(core)  # Ctrl-C is the caller's; the tokens want their worker
        if not started:
            core._start_failed(str(error))
        if error is not None and interrupted:
            raise error

    def _start(self, core: Core) -> tuple[bool, BaseException | None]:
        """Whether there is a thread now, and what was raised on the way."""
        worker = Worker(core, self._started, self._exited, self._on_fork)
        # Daemon, so that a function that never returns cannot keep the interpreter from exiting.
        thread = threading.Thread(target=worker.run, name=f"{self.prefix}-new", daemon=True)
        with self._lock:
            self._workers[thread] = worker
            self._leaving = [each for each in self._leaving if each.is_alive()]
        try:
            thread.start()
        except BaseException as error:
            # An interrupt may come anywhere in start(): only the claim tells if there is a thread.
            if not worker.claim():
                return True, error
            with self._lock:
                del self._workers[thread]
            return False, error
        return True, None

    def _started(self, index: int) -> None:
        threading.current_thread().name = f"{self.prefix}-{index}"
        if self.pin:
            topology.pin_current_thread(topology.core_for_worker(index))

    def _exited(self) -> None:
        with self._lock:
            thread = threading.current_thread()
            if self._workers.pop(thread, None) is not None:
                self._leaving.append(thread)
            waiting = self._on_empty if not self._workers else []
            if waiting:
                self._on_empty = []
        for notify in waiting:
            notify()

    def on_empty(self, notify: Callable[[], None]) -> None:
        """Call `notify()` once no worker is left, from the last one; at once if none is."""
        with self._lock:
            if self._workers:
                self._on_empty.append(notify)
                return
        notify()

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all workers have ended; False if some have not."""
        empty = threading.Event()
        self.on_empty(empty.set)
        if not empty.wait(timeout):
            with self._lock:
                if empty.set in self._on_empty:
                    self._on_empty.remove(empty.set)
            return empty.is_set()
        with self._lock:
            leaving, self._leaving = self._leaving, []
        for thread in leaving:
            if thread is not threading.current_thread():
                thread.join(1.0)  # what it has left to do takes microseconds
        return True

    def workers(self) -> list[Worker]:
        """The workers whose threads live; a snapshot."""
        with self._lock:
            return list(self._workers.values())

    def stuck(self) -> list[str]:
        """One paragraph for each worker that still runs a function: the token and its stack."""
        frames = sys._current_frames()
        paragraphs = []
        for worker in self.workers():
            token = worker.token
            if token is None:
                continue
            frame = frames.get(worker.thread_ident) if worker.thread_ident is not None else None
            stack = "  (no stack)\n" if frame is None else "".join(traceback.format_stack(frame))
            paragraphs.append(f"{token!r}, for {token.run_time:.1f} s:\n{stack}")
        return paragraphs

    def forget(self) -> None:
        """In a forked child: none of the workers exists here."""
        self._lock = threading.Lock()
        self._workers = {}
        self._leaving = []
        self._on_empty = []
