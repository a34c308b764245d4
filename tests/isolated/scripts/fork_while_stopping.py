"""Forks while another thread stops the coordinator: the child may stop it, and start it again."""

import faulthandler
import os
import threading

import tokengate

started = threading.Event()
release = threading.Event()


def held() -> None:
    started.set()
    assert release.wait(20)


coordinator = tokengate.Coordinator()
token = coordinator.submit(held)
assert started.wait(20)
stopping = threading.Thread(target=coordinator.stop)
stopping.start()
while not coordinator.stopped:
    threading.Event().wait(0.005)
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(15, exit=True)
    coordinator.stop()
    assert token.state is tokengate.TokenState.KILLED
    refused = coordinator.submit(int, "1")
    assert isinstance(refused.exception(), tokengate.CoordinatorStopped)
    coordinator.start()
    assert coordinator.submit(int, "1").result(20) == 1
    coordinator.stop()
    os._exit(0)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
release.set()
stopping.join()
assert token.state is tokengate.TokenState.COMPLETED
print("parent done")
