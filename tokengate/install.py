"""`install`: what an application runs off its loop with asyncio's own means runs as tokens."""

from __future__ import annotations

import asyncio
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from tokengate.anyio_backend import patch_anyio
from tokengate.coordinator import Coordinator
from tokengate.current import get_coordinator
from tokengate.executor import Executor

__all__ = ["Installation", "install"]

# event loop -> its installations that have not been undone, the last one on top
_installed: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[Installation]] = (
    weakref.WeakKeyDictionary()
)


class Installation:
    """What `install` has done to one event loop; `uninstall` or leaving ``with`` undoes it.

    executor: the loop's default executor meanwhile. Several installations on one loop may be undone
    in any order. Use it on the loop's own thread, or while the loop does not run.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coordinator: Coordinator, anyio: bool
    ) -> None:
        # first: it may refuse, and then nothing has been done
        self._undo_anyio = patch_anyio(coordinator, loop) if anyio else None
        self.executor = Executor(coordinator=coordinator)
        self._loop: asyncio.AbstractEventLoop | None = loop
        # asyncio keeps it here; other loops keep theirs to themselves
        self._before: Any = getattr(loop, "_default_executor", None)
        loop.set_default_executor(self.executor)
        _installed.setdefault(loop, []).append(self)

    def __repr__(self) -> str:
        return f"<Installation of {self.executor!r}{'' if self._loop else ', undone'}>"

    def uninstall(self) -> None:
        """Put the loop's default executor back. A second time it does nothing; does not block.

        Calls under way go on. On a loop that keeps its executor to itself (uvloop) what comes back
        is a fresh default one.
        """
        loop, self._loop = self._loop, None
        if loop is None:
            return
        if self._undo_anyio is not None:
            self._undo_anyio()
        stack = _installed[loop]
        place = stack.index(self)
        del stack[place]
        if place < len(stack):
            stack[place]._before = self._before  # what the next one covered is gone
        elif not loop.is_closed():
            self._put_back(loop, stack[-1].executor if stack else self._before)

    def _put_back(self, loop: asyncio.AbstractEventLoop, before: Any) -> None:
        if hasattr(loop, "_default_executor"):
            if loop._default_executor is self.executor:  # else somebody has set another since
                loop._default_executor = before
        else:
            loop.set_default_executor(before or ThreadPoolExecutor(thread_name_prefix="asyncio"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.uninstall()


def install(loop: asyncio.AbstractEventLoop | None = None, *, anyio: bool = False) -> Installation:
    """From now on `asyncio.to_thread` and ``run_in_executor(None, ...)`` of a loop run as tokens.

    Of the coordinator that is current here. Each function is an operation of its own, named
    ``"module.qualname"``; name look-ups have places of their own. What the functions raise arrives
    as before. loop: None: the running one. anyio: what anyio's asyncio backend runs in threads on
    that loop as well, which takes in the plain ``def`` handlers of Starlette and FastAPI: limiters,
    ``abandon_on_cancel`` and ``anyio.from_thread`` stay as they are. ImportError without anyio,
    RuntimeError for an anyio whose inside has changed; nothing has been installed then.

    Returns an `Installation`, to undo it. RuntimeError where no loop runs and none is given.
    """
    if loop is None:
        loop = asyncio._get_running_loop()
        if loop is None:
            raise RuntimeError(
                "install() found no running event loop: call it in a coroutine of the loop that it "
                "is for, or name the loop, as in install(loop)"
            )
    elif not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop={loop!r}: expected an asyncio event loop or None")
    return Installation(loop, get_coordinator(), anyio)
