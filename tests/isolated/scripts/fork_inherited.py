"""Forks with tokens completed, executing and waiting: the child reads the first, the others KILLED.

The argument says how the child looks at what it inherited.
"""

import asyncio
import faulthandler
import os
import sys
import threading

import tokengate

started = threading.Event()
release = threading.Event()


@tokengate.task_token_guard
def held() -> str:
    started.set()
    assert release.wait(20)
    return "held"


@tokengate.task_token_guard
def work(i: int) -> int:
    return i


tokengate.configure_default(thread_workers=1)
completed = work(-1)
assert completed.result(20) == -1
executing = held()
assert started.wait(20)
waiting = [work(i) for i in range(100)]
begun = work.map(range(100), in_flight=10)
iterator = iter(begun)


def by_state() -> None:
    states = {token.state for token in [executing, *waiting]}
    assert states == {tokengate.TokenState.KILLED}, states
    assert all(token.done() and not token.cancelled() for token in [executing, *waiting])
    assert not executing.abandoned  # nothing runs here
    assert completed.result() == -1


def by_result() -> None:
    for token in [executing, *waiting]:
        error = token.exception()
        assert isinstance(error, tokengate.TokenKilled), token
        assert "fork" in error.reason, error
        try:
            token.result()
        except tokengate.TokenKilled:
            continue
        raise AssertionError(token)


def by_gather() -> None:
    results = tokengate.gather(executing, *waiting, return_exceptions=True).result()
    assert all(isinstance(result, tokengate.TokenKilled) for result in results), results


def by_first_failure() -> None:
    try:
        tokengate.gather(executing, *waiting).result()
    except tokengate.TokenKilled:
        return
    raise AssertionError("nothing was raised")


def by_as_completed() -> None:
    tokens = list(tokengate.as_completed([executing, *waiting]))
    assert len(tokens) == 101
    by_state()


def by_map() -> None:
    try:
        next(iterator)
    except tokengate.TokenKilled:
        return
    raise AssertionError("nothing was raised")


def by_await() -> None:
    async def one() -> None:
        try:
            await executing
        except tokengate.TokenKilled:
            return
        raise AssertionError("nothing was raised")

    asyncio.run(one())


def by_asyncio_gather() -> None:
    async def several() -> None:
        results = await asyncio.gather(executing, *waiting, return_exceptions=True)
        assert all(isinstance(result, tokengate.TokenKilled) for result in results), results

    asyncio.run(several())


def by_gather_on_loop() -> None:
    async def several() -> None:
        results = await tokengate.gather(executing, *waiting, return_exceptions=True)
        assert all(isinstance(result, tokengate.TokenKilled) for result in results), results

    asyncio.run(several())


def by_ending() -> None:
    assert not executing.cancel()
    assert not waiting[0].kill("for the test")
    assert waiting[0].state is tokengate.TokenState.KILLED


def by_stats() -> None:
    totals = tokengate.get_coordinator().stats().totals
    assert (totals.waiting, totals.executing, totals.submitted) == (0, 0, 0), totals
    by_state()


if sys.argv[1] == "by_map":
    consumer = threading.Thread(target=lambda: next(iterator))
    consumer.start()  # fills the window, then waits for the first
    while tokengate.get_coordinator().stats().totals.submitted < 112:
        threading.Event().wait(0.005)

child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(15, exit=True)
    if sys.argv[1] == "by_use_first":
        assert work(5).result(20) == 5
        by_state()
    else:
        globals()[sys.argv[1]]()
        assert work(5).result(20) == 5
    assert tokengate.get_coordinator().stats().totals.completed == 1
    faulthandler.cancel_dump_traceback_later()
    sys.exit(0)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
if sys.argv[1] != "by_map":
    assert executing.state is tokengate.TokenState.EXECUTING
assert waiting[-1].state is tokengate.TokenState.WAITING
release.set()
assert executing.result(20) == "held"
assert [token.result(20) for token in waiting] == list(range(100))
if sys.argv[1] == "by_map":
    consumer.join()
    assert sorted(iterator) == list(range(1, 100))
print("parent done")
