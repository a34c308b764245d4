"""Ends while a function runs that returns once the coordinator is stopping."""

import threading

import tokengate

started = threading.Event()
pause = threading.Event()


@tokengate.task_token_guard
def work() -> None:
    started.set()
    while not tokengate.get_coordinator().stopped:
        pause.wait(0.005)
    print("finished", flush=True)


token = work()
assert started.wait(20)
print("leaving")
