"""Leaves, with a token executing and ten waiting, in the way the argument names."""

import atexit
import os
import sys
import threading

import tokengate

started = threading.Event()
pause = threading.Event()
ran: list[int] = []


@tokengate.task_token_guard
def work(i: int) -> None:
    started.set()
    while not tokengate.get_coordinator().stopped:
        pause.wait(0.005)
    ran.append(i)


tokengate.configure_default(thread_workers=1)
atexit.register(lambda: print(f"ran {len(ran)}"))
tokens = [work(i) for i in range(11)]
assert started.wait(20)
match sys.argv[1]:
    case "exception":
        raise LookupError("the program failed")
    case "sys.exit":
        sys.exit(7)
    case "os._exit":
        os._exit(3)
