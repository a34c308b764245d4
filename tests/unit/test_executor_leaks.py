"""What an executor's calls held is let go; cycles through futures are collected."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
import weakref
from typing import Any

import pytest

import tokengate
from tokengate import Coordinator, Executor

TIMEOUT = 20.0


class Thing:
    """Something whose end can be watched."""

    def method(self) -> None: ...


def gone(watched: weakref.ref[Any]) -> bool:
    """Whether it goes within the time. A worker may still be about to let go of it."""
    pause = threading.Event()
    for _ in range(2_000):
        if watched() is None:
            return True
        gc.collect()
        pause.wait(0.001)
    return False


def give_back(thing: Any) -> Any:
    return thing


def test_calls_hold_nothing(coordinator: Coordinator) -> None:
    executor = Executor()
    thing = Thing()
    watched = weakref.ref(thing)
    future = executor.submit(thing.method)
    executor.submit(give_back, thing)  # nobody keeps its future
    del thing
    assert future.result(TIMEOUT) is None
    assert gone(watched)


@pytest.mark.parametrize("through", ["attribute", "callback", "result", "waiter"])
def test_cycles(coordinator: Coordinator, through: str) -> None:
    executor = Executor()
    thing = Thing()
    watched = weakref.ref(thing)
    future: Any = executor.submit(give_back, thing)
    thing.future = future  # type: ignore[attr-defined]
    if through == "attribute":
        future.thing = thing
        thing.loop = future.result(TIMEOUT)  # type: ignore[attr-defined]
    elif through == "callback":
        future.add_done_callback(lambda _, kept=thing: None)
    elif through == "waiter":
        concurrent.futures.wait([future], TIMEOUT)
    executor.shutdown()
    del thing, future
    assert gone(watched)


def test_an_executor_goes_with_its_futures(coordinator: Coordinator) -> None:
    executor: Any = Executor()
    watched = weakref.ref(executor)
    future: Any = executor.submit(int)
    executor.future = future
    future.executor = executor
    assert future.result(TIMEOUT) == 0
    del executor, future
    assert gone(watched)


def test_a_loop_goes_although_nobody_uninstalled(coordinator: Coordinator) -> None:
    async def main() -> weakref.ref[Any]:
        tokengate.install()
        assert await asyncio.to_thread(pow, 2, 3) == 8
        return weakref.ref(asyncio.get_running_loop())

    assert gone(asyncio.run(main()))


def test_many_leave_no_objects(coordinator: Coordinator) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with tokengate.install():
            await asyncio.gather(*[loop.run_in_executor(None, give_back, i) for i in range(2_000)])
            await asyncio.gather(*[asyncio.to_thread(give_back, i) for i in range(1_000)])

    def work() -> None:
        asyncio.run(main())
        with Executor(4) as executor:
            futures = [executor.submit(give_back, i) for i in range(2_000)]
            assert sum(each.result() for each in futures) == sum(range(2_000))
            futures = [executor.submit(give_back, i) for i in range(1_000)]
            concurrent.futures.wait(futures, TIMEOUT)
            for each in concurrent.futures.as_completed(futures):
                each.add_done_callback(lambda _: None)

    def settled() -> int:
        coordinator.stop()
        coordinator.start()
        gc.collect()
        return sys.getallocatedblocks()

    work()
    blocks = settled()
    for _ in range(3):
        work()
    assert settled() - blocks < 1_000  # of 18,000 futures
