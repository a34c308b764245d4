"""Ends with tokens waiting that nobody awaits; they have time to run."""

import atexit
import itertools

import tokengate

calls = itertools.count()


@tokengate.task_token_guard
def work() -> None:
    next(calls)


tokengate.configure_default(thread_workers=2)
atexit.register(lambda: print(f"ran {next(calls)}"))
for _ in range(2_000):
    work()
