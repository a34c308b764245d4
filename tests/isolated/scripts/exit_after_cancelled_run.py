"""A loop ends while the function of a token it awaited runs on; so does the program."""

import asyncio
import threading

import tokengate

started = threading.Event()
pause = threading.Event()


@tokengate.task_token_guard
def work() -> None:
    started.set()
    while not tokengate.get_coordinator().stopped:
        pause.wait(0.005)
    print("finished", flush=True)


async def main() -> None:
    token = work()
    waiting = asyncio.ensure_future(asyncio.shield(token))
    await asyncio.to_thread(started.wait, 20)
    waiting.cancel()


asyncio.run(main())
print("leaving")
