"""Forks with more operations than are told apart, while tokens of the last of them wait."""

import faulthandler
import os
import threading

import tokengate

started = threading.Event()
release = threading.Event()


def work(i: int) -> int:
    return i


def held() -> None:
    started.set()
    assert release.wait(20)


guards = [tokengate.task_token_guard(f"operation {i}")(work) for i in range(1_010)]
assert [guard(i).result(20) for i, guard in enumerate(guards)] == list(range(1_010))
coordinator = tokengate.get_coordinator()
coordinator.resize("thread", 1)
blocking = coordinator.submit(held)
assert started.wait(20)
waiting = [guards[-1](i) for i in range(200)]
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(15, exit=True)
    assert guards[-1](7).result(20) == 7
    assert [guard(i).result(20) for i, guard in enumerate(guards)] == list(range(1_010))
    os._exit(0)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
release.set()
assert [token.result(20) for token in waiting] == list(range(200))
print("parent done")
