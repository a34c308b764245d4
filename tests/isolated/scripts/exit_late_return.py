"""Abandoned functions return while the interpreter is being torn down."""

import atexit
import threading

import tokengate

COUNT = 20
started = threading.Semaphore(0)
release = threading.Event()


@tokengate.task_token_guard
def late() -> object:
    started.release()
    release.wait()
    return [object() for _ in range(100)]


tokengate.configure_default(thread_workers=2 * COUNT, stop_timeout=0.1)
atexit.register(release.set)  # runs after the stop protocol has given up on them
tokens = [late() for _ in range(COUNT)]
for _ in tokens:
    assert started.acquire(timeout=20)
