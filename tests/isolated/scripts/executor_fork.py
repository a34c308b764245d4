"""Forks while an executor has calls under way and threads wait for them."""

import concurrent.futures
import faulthandler
import os
import sys
import threading

import tokengate

executor = tokengate.Executor(1)
release = threading.Event()
running = executor.submit(release.wait, 30)
waiting = [executor.submit(pow, n, 2) for n in range(10)]
called = []
waiting[0].add_done_callback(called.append)
held = waiting[1]._condition
holder = threading.Thread(target=lambda: (held.acquire(), release.wait(30), held.release()))
holder.start()
waiter = threading.Thread(target=concurrent.futures.wait, args=([running, *waiting[2:]],))
waiter.start()

child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(20, exit=True)
    try:
        for each in (running, *waiting):
            assert isinstance(each.exception(20), tokengate.TokenKilled), each
            assert each.done()
        assert called == waiting[:1]
        assert len(concurrent.futures.wait(waiting, 20).done) == 10  # also where it was held
        assert executor.submit(pow, 2, 5).result(20) == 32
        assert list(executor.map(abs, range(-3, 0))) == [3, 2, 1]
        executor.shutdown()
        with tokengate.Executor(1) as other:
            assert other.submit(int).result(20) == 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)
release.set()
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
holder.join()
waiter.join()
print([each.result(20) for each in waiting])
