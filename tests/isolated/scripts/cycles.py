"""A thousand cycles of what the argument names leave no thread, no descriptor and no memory."""

import asyncio
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

import tokengate

WARM_UP = 300
CYCLES = 250
process = psutil.Process()


@tokengate.task_token_guard
def work(i: int) -> int:
    return i + 1


def coordinator() -> None:
    with tokengate.Coordinator(thread_workers=2) as own:
        assert own.submit(work, 1).result(20) == 2


def closed_on_loop() -> None:
    async def main() -> None:
        async with tokengate.Coordinator(thread_workers=2) as own:
            assert await own.submit(work, 1) == 2

    asyncio.run(main())


def dropped() -> None:
    own = tokengate.Coordinator(thread_workers=2)
    assert own.submit(work, 1).result(20) == 2
    workers = {thread for thread in threading.enumerate() if thread.daemon}
    del own
    deadline = time.monotonic() + 20
    while workers & set(threading.enumerate()):  # threads that C code started cannot be joined
        assert time.monotonic() < deadline, "its workers live on"
        time.sleep(0)


async def one_token() -> None:
    assert await work(1) == 2


def run() -> None:
    asyncio.run(one_token())


def run_on_uvloop() -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(one_token())


def descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else process.num_fds()


def repeat(cycle: Callable[[], None], count: int) -> "tuple[int, int, int]":
    for _ in range(count):
        cycle()
    gc.collect()
    return process.memory_info().rss, least(descriptors), least(threading.active_count)


def least(count: Callable[[], int]) -> int:
    """Without what is just ending: on a busy machine a thread of the last cycle may take its time."""
    seen = []
    for _ in range(20):
        seen.append(count())
        time.sleep(0.01)
    return min(seen)


# neither it nor a keeper of its limit comes and goes: they are no leak
tokengate.configure_default(thread_workers=1, loop_lag_target=None)
cycle = globals()[sys.argv[1]]
looks = [repeat(cycle, count) for count in (WARM_UP, *4 * (CYCLES,))]
memory, files, threads = zip(*looks, strict=True)
print("descriptors", files[-1] - files[0])
print("threads", threads[-1] - threads[0])
# The allocator of free-threaded builds has its megabyte more or less; a leak grows every time, and
# the smallest thing that could leak grows far more than that in so many cycles.
growth = min(after - before for before, after in itertools.pairwise(memory))
print("bytes each", max(0, growth) // CYCLES)
