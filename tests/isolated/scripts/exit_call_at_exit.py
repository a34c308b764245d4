"""Calls a guarded function when the interpreter is already ending.

Argument "used": after the coordinator has run tokens, so that it is stopped by then; "fresh": not.
"""

import atexit
import sys

import tokengate


@tokengate.task_token_guard
def work() -> str:
    return "worked"


def at_exit() -> None:
    try:
        print(work().result(20))
    except tokengate.TokenKilled as error:
        print(f"{type(error).__name__}: {error.reason}")


atexit.register(at_exit)
if sys.argv[1] == "used":
    assert work().result(20) == "worked"
