"""`install`: what an application runs off its loop with asyncio's own means runs as tokens."""

from __future__ import annotations

import asyncio
import os
import threading
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
_installed_lock = threading.Lock()  # loops on several threads
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        after_in_child=_installed_lock._at_fork_reinit  # type: ignore[attr-defined]
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
        self.executor: Executor = Executor(coordinator=coordinator)
        self.executor._serve(loop)
        # Weak, since `_installed` holds this object for as long as there is the loop.
        self._loop_ref = weakref.ref(loop)
        self._undone = False
        # asyncio keeps it here; other loops keep theirs to themselves
        self._before: Any = getattr(loop, "_default_executor", None)
        loop.set_default_executor(self.executor)
        with _installed_lock:
            _installed.setdefault(loop, []).append(self)

    def __repr__(self) -> str:
        return f"<Installation of {self.executor!r}{', undone' if self._undone else ''}>"

    def uninstall(self) -> None:
        """Put the loop's default executor back. A second time it does nothing; does not block.

        Calls under way go on. On a loop that keeps its executor to itself (uvloop) what comes back
        is a fresh default one. RuntimeError where the loop runs on another thread.
        """
        loop = self._loop_ref()
        if self._undone:
            return
        if loop is not None:
            _refuse_foreign(loop, "uninstall")
        self._undone = True
        if self._undo_anyio is not None:
            self._undo_anyio()
        if loop is None:
            return
        with _installed_lock:
            stack = _installed[loop]
            place = stack.index(self)
            del stack[place]
            if place < len(stack):
                stack[place]._before = self._before  # what the next one covered is gone
                return
            below = stack[-1].executor if stack else self._before
        if not loop.is_closed():
            self._put_back(loop, below)

    def _put_back(self, loop: asyncio.AbstractEventLoop, before: Any) -> None:
        theirs: Any = loop
        if hasattr(theirs, "_default_executor"):
            if theirs._default_executor is self.executor:  # else somebody has set another since
                theirs._default_executor = before
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

    Returns an `Installation`, to undo it. Call it on the loop's own thread, or while the loop does
    not run. RuntimeError where no loop runs and none is given, for a loop that runs on another
    thread, and for one that is closed.
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
    if loop.is_closed():
        raise RuntimeError(f"{loop!r} is closed: there is nothing left to install on")
    _refuse_foreign(loop, "install")
    return Installation(loop, get_coordinator(), anyio)


def _refuse_foreign(loop: asyncio.AbstractEventLoop, what: str) -> None:
    if loop.is_running() and asyncio._get_running_loop() is not loop:
        raise RuntimeError(
            f"{what}: {loop!r} runs on another thread, which alone may change its default "
            f"executor: hand it over by loop.call_soon_threadsafe"
        )
