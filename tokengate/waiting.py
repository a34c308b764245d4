"""Waiting for a collector, on an event loop and on a plain thread."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic

from tokengate._core import Collector, current_worker

__all__ = ["wait_on_loop", "wait_on_thread"]


def _remaining(deadline: float) -> float:
    return min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)


async def wait_on_loop(
    collector: Collector, want: int, other: asyncio.Future[object] | None = None
) -> None:
    """Until `want` ended tokens are ready, none is pending, or `other` is done."""
    signal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object = None) -> None:
        if not signal.done():
            signal.set_result(None)

    loop = asyncio.get_running_loop()
    collector.check_within()

    def wake_from_anywhere() -> None:
        loop.call_soon_threadsafe(wake)

    if collector.full and not collector.watch_room(wake_from_anywhere):
        return
    if not collector.wake_when(want, wake):
        collector.forget_room()
        return
    if other is not None:
        other.add_done_callback(wake)
    try:
        await signal
    finally:
        collector.forget_room()
        collector.forget_waker()
        if other is not None:
            other.remove_done_callback(wake)


def wait_on_thread(collector: Collector, want: int, deadline: float | None = None) -> bool:
    """The same for a thread without a loop; deadline: by `time.monotonic`. False: it passed.

    A worker that waits here runs what it waits for itself, as far as that has not started, and
    gives up its place while it has to wait for others.
    """
    worker = current_worker()
    if worker is not None:
        while not collector.satisfied(want) and collector.help(worker):
            pass
    signal = threading.Semaphore(0)  # both what ends and what makes room may release it
    if collector.full and not collector.watch_room(signal.release):
        return True
    if not collector.wake_when(want, signal.release):
        collector.forget_room()
        return True
    try:
        if worker is not None:
            if deadline is None:
                collector.begin_waiting(worker, want)
            worker.step_aside()
        return signal.acquire(timeout=None if deadline is None else _remaining(deadline))
    finally:
        collector.forget_room()
        collector.forget_waker()
        if worker is not None:
            collector.end_waiting(worker)
            worker.step_back()


def wait_returned_on_thread(tokens, timeout=None):
    import time
    for t in tokens:
        while not t.done() or t.abandoned:
            time.sleep(0.001)
