"""Imports everything: starts no thread, opens no file, writes nothing, and needs no event loop."""

import sys
import threading
from pathlib import Path


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


before = open_files()
import tokengate  # noqa: E402

assert threading.enumerate() == [threading.main_thread()]
assert open_files() == before
assert "asyncio" in sys.modules
for name in tokengate.__all__:
    assert getattr(tokengate, name) is not None, name
assert tokengate.task_token_guard(len)([1]).result(20) == 1
assert len(threading.enumerate()) == 2
tokengate.get_coordinator().stop()
assert threading.enumerate() == [threading.main_thread()]
print("clean")
