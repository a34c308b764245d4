"""Imported first in a thread that ends at once, then used from the main thread and a loop."""

import asyncio
import threading


def first() -> None:
    import tokengate  # noqa: F401


thread = threading.Thread(target=first)
thread.start()
thread.join()

import tokengate  # noqa: E402

work = tokengate.task_token_guard(len)


async def main() -> int:
    return await work([1, 2])


assert work([1]).result(20) == 1
print(asyncio.run(main()))
