"""Ends while a daemon thread's event loop awaits tokens, of which one never ends."""

import asyncio
import threading

import tokengate

started = threading.Event()


@tokengate.task_token_guard
def stuck() -> None:
    started.set()
    threading.Event().wait()


@tokengate.task_token_guard
def quick(i: int) -> int:
    return i


async def serve() -> None:
    waiting = stuck()
    while not waiting.done():
        await asyncio.gather(*[quick(i) for i in range(10)], return_exceptions=True)


tokengate.configure_default(thread_workers=2, stop_timeout=0.3)
threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
assert started.wait(20)
print("leaving")
