"""A guarded function forks; its child reads its own token as KILLED, and may call others."""

import faulthandler
import os
import sys
import threading

import tokengate


@tokengate.task_token_guard
def work(i: int) -> int:
    return i + 1


@tokengate.task_token_guard
def forks(how: str) -> int:
    outer = tokengate.current_token()
    assert outer is not None
    waiting = [work(i) for i in range(10)]
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(15, exit=True)
        try:
            if how == "stop":
                tokengate.get_coordinator().stop()
                tokengate.get_coordinator().start()
            assert outer.state is tokengate.TokenState.KILLED
            assert {token.state.name for token in waiting} <= {"KILLED", "COMPLETED"}
            assert work(1).result(20) == 2
            assert list(work.map(range(100))) == list(range(1, 101))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        if how == "return":
            faulthandler.cancel_dump_traceback_later()  # its thread would keep the child alive
            return 0  # to a worker that does not exist here: the child ends with its only thread
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert [token.result(20) for token in waiting] == list(range(1, 11))
    return os.waitstatus_to_exitcode(status)


tokengate.configure_default(thread_workers=2)
print("child", forks(sys.argv[1]).result(30))
assert work(1).result(20) == 2
assert threading.active_count() <= 4  # main, two workers, the keeper of the active limit
print("parent done")
