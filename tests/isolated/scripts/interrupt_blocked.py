"""Ctrl-C while the main thread blocks, as the argument names, on functions that never return.

The workers interrupt it themselves, once the main thread sleeps.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import tokengate

main_thread = threading.get_native_id()
about_to_block = threading.Event()
pause = threading.Event()
once = threading.Lock()


def main_thread_sleeps() -> bool:
    stat = Path(f"/proc/self/task/{main_thread}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "S"


@tokengate.task_token_guard
def stuck(i: int) -> int:
    if once.acquire(blocking=False):
        assert about_to_block.wait(20)
        asleep = 0
        while asleep < 20:  # in a row: no moment between two steps, but blocked
            asleep = asleep + 1 if main_thread_sleeps() else 0
            pause.wait(0.002)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()
    return i


def items() -> "list[int]":
    return list(range(100))


def result() -> None:
    token = stuck(1)
    about_to_block.set()
    token.result()


def result_with_timeout() -> None:
    token = stuck(1)
    about_to_block.set()
    token.result(3_600)


def gather() -> None:
    tokens = [stuck(i) for i in items()]
    about_to_block.set()
    tokengate.gather(*tokens).result()


def as_completed() -> None:
    tokens = [stuck(i) for i in items()]
    about_to_block.set()
    for _ in tokengate.as_completed(tokens):
        pass


def map_iterated() -> None:
    about_to_block.set()
    for _ in stuck.map(items()):
        pass


def stop() -> None:
    stuck(1)
    about_to_block.set()
    tokengate.get_coordinator().stop(3_600)


def leaving_with() -> None:
    with tokengate.Coordinator(stop_timeout=3_600, name="other") as coordinator:
        coordinator.submit(stuck, 1)
        about_to_block.set()


tokengate.configure_default(stop_timeout=0.2, thread_workers=2)
try:
    globals()[sys.argv[1]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    if "again" in sys.argv:
        raise
