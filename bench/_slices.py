"""How long single callbacks hold an event loop, by the wall clock and by their thread's CPU."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any


class SliceTimedLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, timing every callback it runs.

    A callback's CPU time is work the loop's own thread did: ours, where the callback is ours. Its
    wall time adds the waits inside it, for the GIL above all, which a worker that runs Python
    may hold for a switch interval at a time. Garbage collections that fall into a callback are
    part of both. Kept since `reset`, each the longest, in seconds: CPU time, CPU time but for
    collections, wall time, and a collection's own CPU time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget what has been seen; the callback that is running now is not counted."""
        self.longest_cpu = 0.0
        self.longest_uncollected_cpu = 0.0
        self.longest_wall = 0.0
        self.longest_collection = 0.0
        self.callbacks = 0
        self._epoch: object = object()
        self._collection_start = 0.0
        self._collected = 0.0

    def _timed(self, callback: Callable[..., object], *arguments: Any) -> None:
        epoch, collected = self._epoch, self._collected
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            callback(*arguments)
        finally:
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            if epoch is self._epoch:
                self.callbacks += 1
                self.longest_cpu = max(self.longest_cpu, cpu)
                own = cpu - (self._collected - collected)
                self.longest_uncollected_cpu = max(self.longest_uncollected_cpu, own)
                self.longest_wall = max(self.longest_wall, wall)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """`asyncio.SelectorEventLoop.call_soon`, timed."""
        return super().call_soon(self._timed, callback, *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """`asyncio.SelectorEventLoop.call_soon_threadsafe`, timed."""
        return super().call_soon_threadsafe(self._timed, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """`asyncio.SelectorEventLoop.call_at`, timed."""
        return super().call_at(when, self._timed, callback, *args, context=context)

    def add_reader(  # type: ignore[override]
        self, fd: Any, callback: Callable[..., object], *args: Any
    ) -> None:
        """`asyncio.SelectorEventLoop.add_reader`, timed."""
        super().add_reader(fd, self._timed, callback, *args)

    def watch_collector(self, phase: str, info: dict[str, int]) -> None:
        """For `gc.callbacks`: note how long a collection on this loop's thread took."""
        if asyncio._get_running_loop() is not self:
            return
        if phase == "start":
            self._collection_start = time.thread_time()
        else:
            took = time.thread_time() - self._collection_start
            self._collected += took
            self.longest_collection = max(self.longest_collection, took)

    def close(self) -> None:
        """Close, and stop watching the collector."""
        if self.watch_collector in gc.callbacks:
            gc.callbacks.remove(self.watch_collector)
        super().close()
