"""Ends, in several ways, while calls of an executor wait and run."""

import asyncio
import atexit
import sys
import threading
import time

import tokengate

how = sys.argv[1]
started = threading.Event()
executor = tokengate.Executor(2)


def work(n: int) -> None:
    started.set()
    time.sleep(0.02)
    print(f"ran {n}\n", end="", flush=True)  # in one piece


def stuck() -> None:
    started.set()
    threading.Event().wait()


if how == "late":
    # when atexit calls this, coordinators have been stopped
    @atexit.register
    def late() -> None:
        try:
            executor.submit(work, 1)
        except RuntimeError as error:
            print(error)

    executor.submit(work, 0)
elif how == "waiting":
    for n in range(10):
        executor.submit(work, n)
elif how == "shut down":
    for n in range(10):
        executor.submit(work, n)
    executor.shutdown(wait=False)
elif how == "cancelled":
    for n in range(10):
        executor.submit(work, n)
    assert started.wait(20)
    executor.shutdown(wait=False, cancel_futures=True)
elif how == "stuck":
    tokengate.get_coordinator().stop_timeout = 0.2
    executor.submit(stuck)
    assert started.wait(20)
elif how == "thread":
    closed = threading.Event()

    def late_work() -> None:
        closed.wait(20)
        work(1)

    async def start_thread() -> None:
        tokengate.install()
        await asyncio.to_thread(lambda: threading.Thread(target=late_work).start())

    asyncio.run(start_thread())
    print("closed", flush=True)
    closed.set()
elif how == "run":

    async def main() -> None:
        tokengate.install()
        for n in range(10):
            asyncio.get_running_loop().run_in_executor(None, work, n)

    asyncio.run(main())
    print("closed", flush=True)
