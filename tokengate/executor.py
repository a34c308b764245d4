"""`Executor`: a thread pool executor of the standard library in kind, whose calls are tokens."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tokengate import _core
from tokengate.coordinator import Coordinator
from tokengate.current import get_coordinator
from tokengate.lanes.catalogue import require_lane
from tokengate.naming import NO_TAGS, operation_name
from tokengate.policy import checked_policy
from tokengate.token import Token
from tokengate.waiting import wait_returned_on_thread

__all__ = ["Executor", "ExecutorFuture", "LoopFuture"]

P = ParamSpec("P")
R = TypeVar("R")

# asyncio looks names up through the executor that everything else uses. A kind of its own, with
# places of its own and before all others, so that no name waits behind work that waits for names.
_NAMES = checked_policy(limit=16, priority=100)
_LOOKUPS = {
    "socket.getaddrinfo": ("socket.getaddrinfo", _NAMES),
    "_socket.getnameinfo": ("socket.getnameinfo", _NAMES),
    # the same on a loop in debug mode
    "asyncio.base_events.BaseEventLoop._getaddrinfo_debug": ("socket.getaddrinfo", _NAMES),
}


class ExecutorFuture(_core.FutureBase, concurrent.futures.Future[R]):
    """What `Executor.submit` returns: the call's token, as a future of `concurrent.futures`.

    Everything there takes it, `wait` and `as_completed` too. What the function raised is raised as
    it was, `SystemExit` and all. `cancel()` succeeds only before the function starts.
    """

    # asyncio takes everything for one of its own futures that has something else here
    _asyncio_future_blocking: Any = None

    if TYPE_CHECKING:

        def result(self, timeout: float | None = None) -> R:
            """What the function returned; see the core."""
            ...

        def __await__(self) -> Generator[Any, None, R]:
            """Only where it was submitted on a thread with a running loop; see `LoopFuture`."""
            ...


class LoopFuture(ExecutorFuture[R], Token[R]):  # pyright: ignore[reportIncompatibleMethodOverride]
    """The same, submitted on a thread with a running event loop: asyncio's future as well.

    Awaited there it needs no second future around it: `asyncio.wrap_future` passes it through.
    Callbacks run on the loop, `cancel()` succeeds even while the function runs (which is then
    abandoned), as with the future that asyncio would have put around it. `result()` still blocks,
    but for that of a loop's own executor (`install`), which says `InvalidStateError` as asyncio's.
    """

    _asyncio_future_blocking = _core.TokenBase._asyncio_future_blocking
    __await__: Callable[..., Generator[Any, None, R]] = Token.__await__

    if TYPE_CHECKING:

        def cancel(self, msg: object = None) -> bool:
            """Cancel the call for everybody, as a token."""
            ...

        def add_done_callback(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, callback: Callable[[Any], object], *, context: Context | None = None
        ) -> None:
            """Call `callback(future)` on the loop, as a token."""
            ...

    else:
        cancel = _core.TokenBase.cancel
        add_done_callback = _core.TokenBase.add_done_callback


class Executor(_core.ExecutorBase, ThreadPoolExecutor):
    """A `ThreadPoolExecutor` in kind: its calls run as tokens of a coordinator.

    max_workers: so many of this executor's calls execute at once, in the order they were
    submitted; None: as many as the coordinator lets in. thread_name_prefix: there are no threads of
    its own to be named; all calls are counted under one operation of that name. Without a name and
    a limit each function is an operation of its own, ``"module.qualname"``; with a limit alone the
    name is made up. coordinator: whose workers run the calls, None: the current one.
    initializer, initargs: refused, since the workers are shared. lane: ``"thread"``,
    ``"process"``, ``"interpreter"`` or ``"auto"``.

    Works as a loop's default executor, and wherever `concurrent.futures` takes an executor. All
    methods may be called from any thread; `shutdown` and leaving ``with`` block.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        coordinator: Coordinator | None = None,
        lane: str = "thread",
    ) -> None:
        if initializer is not None or initargs:
            raise TypeError(
                f"initializer={initializer!r}, initargs={initargs!r}: an Executor shares its "
                "coordinator's workers, which cannot be set up for one executor; set things up "
                "in the function itself, or keep a ThreadPoolExecutor for this"
            )
        if not isinstance(lane, str):
            raise TypeError(f"lane={lane!r}: expected the name of a lane, such as 'process'")
        require_lane(lane)
        if coordinator is None:
            coordinator = get_coordinator()
        elif not isinstance(coordinator, Coordinator):
            raise TypeError(f"coordinator={coordinator!r}: expected a Coordinator or None")
        if not isinstance(thread_name_prefix, str):
            raise TypeError(f"thread_name_prefix={thread_name_prefix!r}: expected a string")
        if max_workers is not None:
            _check_count(max_workers)
        auto = lane == "auto"
        core = coordinator._lane_core("thread" if auto else lane)
        self._max_workers: int | None = max_workers  # type: ignore[assignment]
        self._thread_name_prefix = thread_name_prefix
        name = None
        if max_workers is not None or thread_name_prefix:
            name = _claim(self, core, thread_name_prefix, max_workers)
        self._set_up(
            core, coordinator, ExecutorFuture, LoopFuture, operation_name, _LOOKUPS, name, auto
        )

    def __repr__(self) -> str:
        limit = "" if self._max_workers is None else f", max_workers={self._max_workers}"
        return f"<Executor on {self.coordinator!r}{limit}{' shut down' if self._shutdown else ''}>"

    if TYPE_CHECKING:

        def submit(
            self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
        ) -> ExecutorFuture[R]:
            """Run `fn(*args, **kwargs)` as a token; returns its future."""
            ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the coordinator and its workers go on.

        wait: block until the functions of all calls have returned, also of those that were
        abandoned, and the callbacks of plain futures have been called. cancel_futures: cancel what
        has not started. RuntimeError where one of its own functions waits so, which would be for
        itself.
        """
        futures = self._close()
        if cancel_futures:
            for future in futures:
                _core.FutureBase.cancel(future)
        if not wait:
            return
        worker = _core.current_worker()
        if worker is not None and not set(worker.tokens).isdisjoint(futures):
            raise RuntimeError(
                f"{self!r}: shutdown() was called by a function it runs, and would wait for that "
                "function to return; use shutdown(wait=False) there"
            )
        wait_returned_on_thread(futures)
        self._await_callbacks(futures)


def _check_count(max_workers: Any) -> None:
    if not isinstance(max_workers, int) or isinstance(max_workers, bool):
        raise TypeError(f"max_workers={max_workers!r}: expected a whole number or None")
    if max_workers <= 0:
        raise ValueError(
            f"max_workers={max_workers!r}: max_workers must be greater than 0; None means that "
            "the coordinator decides"
        )


# the core of a lane -> operation name -> the executor that has it, or the last one that had it
_claims: weakref.WeakKeyDictionary[_core.Core, dict[str, weakref.ref[Executor]]] = (
    weakref.WeakKeyDictionary()
)
_claims_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_claims_lock._at_fork_reinit)  # type: ignore[attr-defined]


def _claim(executor: Executor, core: _core.Core, prefix: str, limit: int | None) -> str:
    """Name of an operation that is this executor's alone, and has its limit.

    One that has been left is taken again: a coordinator knows a thousand names, and programs may
    make an executor for each of their requests.
    """
    policy = checked_policy(limit=limit)
    with _claims_lock:
        claims = _claims.setdefault(core, {})
        for name in _candidates(prefix):
            if core._knows(name):
                if not _is_free(core, name, claims):
                    continue
                core._set_policy(name, policy)
            else:
                core._introduce(name, NO_TAGS, policy)
                if not core._knows(name):
                    raise RuntimeError(
                        f"{core!r} knows a thousand operations already, and has no place "
                        "for one with a limit of its own: use fewer names"
                    )
            claims[name] = weakref.ref(executor)
            return name
    raise AssertionError("there is always another number")


def _candidates(prefix: str) -> Iterator[str]:
    if prefix:
        yield prefix
    for number in itertools.count(2 if prefix else 1):
        yield f"{prefix or 'executor'}-{number}"


def _is_free(core: _core.Core, name: str, claims: dict[str, weakref.ref[Executor]]) -> bool:
    if name not in claims:
        return False  # somebody's operation of that name
    owner = claims[name]()
    if owner is not None and not owner._shutdown:
        return False
    figures = core._look_operation(name)
    busy = ("waiting", "admitted", "executing", "abandoned_now")
    return not any(figures[each] for each in busy)
