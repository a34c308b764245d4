"""A signal handler raises at many moments of a call; every later call still runs."""

import signal

import tokengate


class Alarm(Exception):
    pass


def ring(number: int, frame: object) -> None:
    raise Alarm


@tokengate.task_token_guard
def work(i: int) -> int:
    return i


def rounds(count: int) -> int:
    rung = 0
    for i in range(count):
        # a fresh pool, so that the call starts a worker
        coordinator = tokengate.Coordinator(thread_workers=1)
        guarded = work.options(coordinator=coordinator)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00001 * (1 + i % 40))
            guarded(i)
        except Alarm:
            rung += 1
        # whatever is still under way must not strike below
        try:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            rung += 1
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert guarded(i).result(20) == i
        coordinator.stop()
        signal.signal(signal.SIGALRM, ring)
    return rung


signal.signal(signal.SIGALRM, ring)
print("rung" if rounds(400) else "never rung")
