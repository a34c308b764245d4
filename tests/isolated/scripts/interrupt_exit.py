"""Ctrl-C while the interpreter waits at its end for a stuck function: it ends at once."""

import os
import signal
import threading

import tokengate

pause = threading.Event()
started = threading.Event()


@tokengate.task_token_guard
def stuck() -> None:
    started.set()
    while not tokengate.get_coordinator().stopped:
        pause.wait(0.005)
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()


tokengate.configure_default(stop_timeout=3_600)
token = stuck()
assert started.wait(20)
print("leaving", flush=True)
