"""Ends while a function is stuck, in the way the argument names, and a thousand tokens wait."""

import sys
import threading
import time

import tokengate

started = threading.Event()


def stuck_waiting() -> None:
    threading.Event().wait()


def stuck_sleeping() -> None:
    time.sleep(3_600)


def stuck_spinning() -> None:
    while True:
        pass


@tokengate.task_token_guard
def run(name: str) -> None:
    started.set()
    globals()[f"stuck_{name}"]()


tokengate.configure_default(thread_workers=1, stop_timeout=0.3, name="demo")
tokens = [run(sys.argv[1])]
assert started.wait(20)
tokens += [run(sys.argv[1]) for _ in range(1_000)]
print("leaving")
