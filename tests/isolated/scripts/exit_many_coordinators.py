"""Ends with eight coordinators, each with a stuck function."""

import threading

import tokengate

started = threading.Semaphore(0)


def stuck() -> None:
    started.release()
    threading.Event().wait()


made = [tokengate.Coordinator(stop_timeout=0.2, name=f"number{i}") for i in range(8)]
for coordinator in made:
    coordinator.submit(stuck)
for _ in made:
    assert started.acquire(timeout=20)
