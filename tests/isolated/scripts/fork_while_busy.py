"""Forks again and again while other threads submit, run loops and make coordinators."""

import asyncio
import faulthandler
import os
import threading

import tokengate

FORKS = 40
done = threading.Event()


@tokengate.task_token_guard
def work(i: int) -> int:
    return i + 1


async def several() -> None:
    await asyncio.gather(*[work(i) for i in range(20)])


def submits() -> None:
    while not done.is_set():
        assert list(work.map(range(200))) == list(range(1, 201))


def runs_loops() -> None:
    while not done.is_set():
        asyncio.run(several())


def makes_coordinators() -> None:
    while not done.is_set():
        with tokengate.Coordinator(thread_workers=1) as own:
            assert own.submit(work, 1).result(20) == 2


# Once, as a program has that forks with loops about: the first use of asyncio makes its policy under
# a lock of asyncio's own, and a child that is forked right then finds it taken for ever.
asyncio.run(several())

threads = [threading.Thread(target=f) for f in (submits, runs_loops, makes_coordinators)]
for thread in threads:
    thread.start()
codes = []
try:
    for _ in range(FORKS):
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(15, exit=True)
            assert list(work.map(range(20))) == list(range(1, 21))
            asyncio.run(several())
            with tokengate.Coordinator() as fresh:
                assert fresh.submit(work, 1).result(20) == 2
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
finally:
    done.set()
    for thread in threads:
        thread.join()
print(codes == [0] * FORKS)
