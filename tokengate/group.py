"""`TokenGroup`: tokens that begin and end together, after `asyncio.TaskGroup`.

The rules of who cancels whom, and of what is raised in the end, are those of asyncio's task group;
differences come from tokens: they can be started and can fail on any thread, and a function that
executes cannot be stopped, so leaving waits until it has returned.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from tokengate import _core
from tokengate.coordinator import Coordinator
from tokengate.current import get_coordinator, runtime
from tokengate.errors import TokenCancelled, TokenDeadlock
from tokengate.guard import GuardedFunction
from tokengate.naming import NO_TAGS, operation_name, reject_asynchronous
from tokengate.token import Token
from tokengate.waiting import wait_empty_on_loop, wait_empty_on_thread

__all__ = ["TokenGroup"]

P = ParamSpec("P")
R = TypeVar("R")

# What a body raises to get out at once. It is raised as it is, never as one of several failures.
_LEAVES = (KeyboardInterrupt, SystemExit, TokenCancelled)
# What a body raises because a token it asked for was cancelled.
_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


class TokenGroup:
    """Start tokens in a block, and leave it when nothing of them runs any more.

    ``async with TokenGroup() as group`` on an event loop; ``with TokenGroup() as group`` on a
    thread without one, also in a function that a worker runs. `start` makes tokens; they may be
    awaited like any other.

    The first token that fails (raises, expires, is refused or killed) cancels the others: what has
    not started never runs, what executes ends for its awaiters at once. On a loop the body is
    interrupted as well, by cancelling its task; in a ``with`` it goes on. A body that raises, or is
    cancelled, cancels the tokens too; a token that is cancelled alone is no failure.

    Leaving waits until all have ended and their functions have returned, those of cancelled tokens
    included; abandon=True: only until they have ended. Failures, one that the body raised included,
    are raised together as an `ExceptionGroup`; without one the body's own cancellation goes on.
    KeyboardInterrupt, SystemExit and `TokenCancelled` are raised as they are. Ctrl-C in a ``with``
    that waits cancels the tokens and waits on; a second one leaves at once. A wait that could never
    end is the failure `TokenDeadlock`.

    coordinator: where the tokens run, None: as for any call. A group is entered once. TypeError for
    what these cannot be; RuntimeError for entering it twice, for ``with`` where a loop runs, and
    for ``async with`` where no asyncio loop runs (under trio) or outside of a task.
    """

    def __init__(self, *, abandon: bool = False, coordinator: Coordinator | None = None) -> None:
        if not isinstance(abandon, bool):
            raise TypeError(f"abandon={abandon!r}: expected True or False")
        if coordinator is not None and not isinstance(coordinator, Coordinator):
            raise TypeError(f"coordinator={coordinator!r}: expected a Coordinator or None")
        self._coordinator = coordinator
        self._roster = _core.Roster(not abandon, self._fail)
        self._lock = threading.Lock()  # of the next two, which any thread that ends a token writes
        self._failed: list[Token[Any]] = []  # in the order they failed
        self._aborting = False
        self._entered = False
        self._exiting = False
        self._left = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._parent: asyncio.Task[Any] | None = None
        self._interrupted = False  # we have cancelled the parent, and must take that back

    def __repr__(self) -> str:
        state = "cancelling" if self._aborting else "entered" if self._entered else "new"
        state = "left" if self._left else state
        return f"<TokenGroup {state} tokens={len(self._roster)} failed={len(self._failed)}>"

    # -- tokens ------------------------------------------------------------------------------------

    @overload
    def start(
        self, fn: GuardedFunction[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Token[R]: ...
    @overload
    def start(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Token[R]: ...
    def start(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Token[Any]:
        """Call `fn(*args, **kwargs)` as a token of this group.

        A guarded function keeps its operation, policy and tags, and what a view made by `.options`
        or by binding adds; any other callable runs as by `Coordinator.submit`. Once the group has
        begun to cancel its tokens the call does not run and its token is cancelled already. Any
        thread, functions of the group included; does not block, unless a full queue with
        ``overflow="block"`` makes it. RuntimeError before the group is entered and once it has been
        left; TypeError for something that is not callable, or is asynchronous.
        """
        if not self._entered:
            raise RuntimeError(f"{self!r} has not been entered: use `async with` or `with` first")
        if not isinstance(fn, _core.GuardBase):
            if not callable(fn):
                raise TypeError(f"start() needs a callable, got {fn!r}")
            reject_asynchronous(fn)
        if not self._roster.reserve():
            raise RuntimeError(f"{self!r} has been left: it starts nothing more")
        try:
            if self._aborting:
                return self._cancelled(fn, args, kwargs)
            if self._coordinator is None and isinstance(fn, _core.GuardBase):
                token = fn(*args, **kwargs)
            else:
                token = (self._coordinator or get_coordinator()).submit(fn, *args, **kwargs)
            self._roster.add(token)
            if self._aborting:
                # whoever set that may have looked at the roster just before
                token.cancel()
            return token
        finally:
            self._roster.unreserve()

    def _cancelled(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Token[Any]:
        if isinstance(fn, _core.GuardBase):
            guard = cast("GuardedFunction[..., Any]", fn)
            if self._coordinator is not None:
                guard = guard._on(self._coordinator)
            return _core.cancelled_call(guard, args, kwargs)
        home = self._coordinator or get_coordinator()
        return _core.cancelled_submit(runtime, home, operation_name(fn), NO_TAGS, fn, args, kwargs)

    def _fail(self, token: Token[Any]) -> None:
        # By the roster, on whatever thread ended the token.
        with self._lock:
            self._failed.append(token)
        loop = self._loop  # looked at once: a group that is left at this moment forgets it
        if self._abort() and loop is not None:
            # a loop that was closed meanwhile has no body left to interrupt
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._interrupt)

    def _abort(self) -> bool:
        """Cancel the tokens. True: by this call."""
        with self._lock:
            if self._aborting:
                return False
            self._aborting = True
        self._roster.cancel()
        return True

    def _interrupt(self) -> None:
        # On the loop. A body that has come to its end waits for the tokens already.
        if self._exiting or self._parent is None or self._parent.done():
            return
        self._interrupted = True
        self._parent.cancel()

    # -- in and out --------------------------------------------------------------------------------

    def _enter(self) -> None:
        if self._entered:
            raise RuntimeError(f"{self!r} has been entered before: make another one")
        self._entered = True

    def __enter__(self) -> Self:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                "leaving a TokenGroup would block the event loop that runs on this thread: use "
                "`async with`"
            )
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        problems: list[BaseException] = []
        try:
            while True:
                try:
                    self._exiting = True
                    if error is not None:
                        self._abort()
                    if self._roster.close_if_empty():
                        break
                    wait_empty_on_thread(self._roster)
                except BaseException as problem:  # Ctrl-C, what another signal raised, a deadlock
                    problems.append(problem)
                    self._abort()
                    if len(problems) > 1 or isinstance(error, KeyboardInterrupt):
                        break
            return self._conclude(error, problems)
        finally:
            self._left = True
            self._roster.clear()  # Ctrl-C, wherever it struck
            del error, problems, trace

    async def __aenter__(self) -> Self:
        loop = _core.require_loop("a TokenGroup")
        parent = asyncio.current_task()
        if parent is None:
            raise RuntimeError(f"{self!r} must be entered within a task, which it can interrupt")
        self._enter()
        self._loop = loop
        self._parent = parent
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._exiting = True
        parent = self._parent
        assert parent is not None
        problems: list[BaseException] = []
        going = error if isinstance(error, asyncio.CancelledError) else None
        late: asyncio.CancelledError | None = None
        if error is not None:
            self._abort()
        try:
            while not self._roster.close_if_empty():
                try:
                    await wait_empty_on_loop(self._roster)
                except asyncio.CancelledError as cancelled:
                    # The functions run on, whoever is in a hurry: the wait goes on.
                    late = cancelled
                    if self._abort():
                        going = cancelled
                except TokenDeadlock as deadlock:
                    problems.append(deadlock)
                    self._abort()
                    if len(problems) > 1:
                        break
                except BaseException:  # the coroutine is closed
                    self._abort()
                    raise
            if self._interrupted:
                if parent.uncancel() == 0:
                    going = None  # it was ours
                elif going is None:
                    going = late
            return self._conclude(error, problems, going)
        finally:
            self._left = True
            self._roster.clear()
            self._parent = self._loop = parent = None
            del error, problems, trace, going, late

    def _conclude(
        self,
        error: BaseException | None,
        problems: list[BaseException],
        going: asyncio.CancelledError | None = None,
    ) -> bool:
        """Raises what came of it, or says whether the body's exception ends here.

        going: the cancellation that goes on, unless there are failures.
        """
        with self._lock:
            failed, self._failed = self._failed, []
        errors: list[BaseException] = []
        try:
            for token in failed:  # all are asked, for none may be reported as never retrieved
                failure = token.exception()
                assert failure is not None
                if not any(failure is known for known in errors):
                    errors.append(failure)
            for problem in (error, *problems):
                if isinstance(problem, _LEAVES):
                    if problem is error:
                        return False
                    raise problem
            cancelled = _CANCELLED if self._loop is None else asyncio.CancelledError
            if error is not None and not isinstance(error, cancelled):
                if isinstance(error, GeneratorExit) and not errors and not problems:
                    return False
                if not any(error is known for known in errors):
                    errors.append(error)
            errors += problems
            if errors:
                self._keep_cancelled()
                raise BaseExceptionGroup("unhandled errors in a TokenGroup", errors) from None
            if going is not None and going is not error:
                raise going
            if self._loop is None:
                return False
            return going is None
        finally:
            del failed, errors, error, problems, going
            token = failure = problem = None  # type: ignore[assignment]

    def _keep_cancelled(self) -> None:
        # Failures hide a cancellation from outside: ask for it once more, with the count unchanged.
        if self._parent is not None and self._parent.cancelling():
            self._parent.uncancel()
            self._parent.cancel()
