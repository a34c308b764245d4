"""Forks in a coroutine that awaits tokens; the child calls without a loop, then on its own."""

import asyncio
import faulthandler
import os
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
    return i + 1


async def several() -> "list[int]":
    return await asyncio.gather(*[work(i) for i in range(20)])


async def main() -> None:
    token = held()
    awaiting = asyncio.ensure_future(asyncio.shield(token))
    await asyncio.to_thread(started.wait, 20)
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(15, exit=True)
        assert token.state is tokengate.TokenState.KILLED
        assert work(1).result(20) == 2
        assert asyncio.run(several()) == list(range(1, 21))
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    print("child", os.waitstatus_to_exitcode(status))
    release.set()
    await awaiting
    assert token.result() == "held"
    print("parent done")


asyncio.run(main())
