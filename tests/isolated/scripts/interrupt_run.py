"""Ctrl-C while asyncio.run awaits tokens: it ends with KeyboardInterrupt, they are cancelled.

Argument "uvloop": on uvloop.
"""

import asyncio
import os
import signal
import sys
import threading

import tokengate

started = threading.Semaphore(0)
release = threading.Event()
tokens: "list[tokengate.Token[bool]]" = []


@tokengate.task_token_guard
def held() -> bool:
    started.release()
    return release.wait(20)


async def interrupt() -> None:
    for _ in range(2):
        await asyncio.to_thread(started.acquire)
    os.kill(os.getpid(), signal.SIGINT)


async def main() -> None:
    interrupting = asyncio.ensure_future(interrupt())
    tokens.extend(held() for _ in range(10))
    try:
        await asyncio.gather(*tokens)
    finally:
        await interrupting


tokengate.configure_default(thread_workers=2)
loop_factory = None
if "uvloop" in sys.argv:
    import uvloop

    loop_factory = uvloop.new_event_loop
try:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
abandoned = sum(token.abandoned for token in tokens)
# at least those two; a free worker may take another between two cancels
print({token.state.name for token in tokens}, abandoned >= 2)
release.set()
