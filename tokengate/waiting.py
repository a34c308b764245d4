"""Waiting for a collector or a roster, on an event loop and on a plain thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Any

from tokengate._core import Collector, Roster, current_worker
from tokengate.token import Token

__all__ = [
    "roster_of",
    "wait_empty_on_loop",
    "wait_empty_on_thread",
    "wait_on_loop",
    "wait_on_thread",
    "wait_returned_on_thread",
]


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


async def wait_empty_on_loop(roster: Roster) -> None:
    """Until the roster is empty. Where it is cancelled the roster stays as it is."""
    loop = asyncio.get_running_loop()
    signal: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not signal.done():
            signal.set_result(None)

    def wake_from_anywhere() -> None:
        # a loop that was closed meanwhile has nobody left to wake
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake)

    roster.check_within()
    if not roster.wake_when_empty(wake_from_anywhere):
        return
    try:
        await signal
    finally:
        roster.forget_waker()


def wait_empty_on_thread(roster: Roster, deadline: float | None = None) -> bool:
    """The same for a thread without a loop; deadline: by `time.monotonic`. False: it passed.

    A worker that waits here runs tokens itself, as far as they have not started, and gives up its
    place while it has to wait for others. TokenDeadlock if that wait could never end.
    """
    worker = current_worker()
    if worker is not None and deadline is None:
        roster.help(worker)
    signal = threading.Lock()
    signal.acquire()
    if not roster.wake_when_empty(signal.release):
        return True
    try:
        if worker is not None:
            if deadline is None:
                roster.begin_waiting(worker)
            worker.step_aside()
        return signal.acquire(timeout=-1 if deadline is None else _remaining(deadline))
    finally:
        roster.forget_waker()
        if worker is not None:
            roster.end_waiting(worker)
            worker.step_back()


def roster_of(tokens: Iterable[Token[Any]]) -> Roster:
    """A roster of these tokens, until their functions have returned."""
    roster = Roster(True)
    for token in tokens:
        roster.add(token)
    return roster


def wait_returned_on_thread(tokens: Iterable[Token[Any]], timeout: float | None = None) -> bool:
    """Until all have ended and their functions, if they ever started, have returned.

    For a thread without a loop; timeout in seconds. False: it passed first.
    """
    deadline = None if timeout is None else monotonic() + timeout
    roster = roster_of(tokens)
    try:
        return wait_empty_on_thread(roster, deadline)
    finally:
        roster.clear()
