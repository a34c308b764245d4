"""The peer without the GIL: two bare threads that share calls out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

THREADS = 2
BARE = "two bare threads"

ItemT = TypeVar("ItemT")


def on_bare_threads(work: Callable[[ItemT], object], left: deque[ItemT]) -> float:
    """Seconds until `work` has been called with all of `left`; starting and joining included."""

    def share() -> None:
        while True:
            try:
                item = left.popleft()
            except IndexError:
                return
            work(item)

    start = time.perf_counter()
    threads = [threading.Thread(target=share) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start
