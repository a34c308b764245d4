"""anyio's worker threads, replaced by tokens: `anyio.to_thread.run_sync` on the asyncio backend.

And with it the plain ``def`` handlers of Starlette and FastAPI. trio's backend is another class,
which nothing here touches.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from types import BuiltinMethodType, FunctionType
from typing import Any, NoReturn

from tokengate import _core
from tokengate.anyio_inside import AnyioInside
from tokengate.coordinator import Coordinator
from tokengate.current import runtime
from tokengate.naming import NO_TAGS, operation_name
from tokengate.token import Token

__all__ = ["patch_anyio"]

_STOPS = (StopIteration, StopAsyncIteration)

# Among what anyio keeps for a thread: which one asked for the call.
_CALLER = "tokengate_caller"

# Functions that only call another, by name: the keyword argument that it is in. One that is not
# known here, or is called otherwise one day, only lends its own name to the operation.
_CARRIERS = {"fastapi.telemetry._api._run_sync_endpoint": "function"}


class _Route:
    """One `patch_anyio` that has not been undone: calls on this loop (None: on any) go there."""

    def __init__(
        self, coordinator: Coordinator, loop: weakref.ref[asyncio.AbstractEventLoop] | None
    ) -> None:
        self.coordinator = coordinator
        self.loop = loop


class _Raised(Exception):
    """Carries what a function raised past the token, which would not hand all of it on as it is."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


def _name(function: Any, arguments: tuple[Any, ...]) -> str:
    """Operation of a call: that of the function in the end, through partials and `Context.run`."""
    keywords: dict[str, Any] = {}
    while True:
        if type(function) is FunctionType:
            name = f"{function.__module__}.{function.__qualname__}"
            if name not in _CARRIERS or _CARRIERS[name] not in keywords:
                return name
            function, keywords = keywords[_CARRIERS[name]], {}
        elif type(function) is partial:
            arguments = function.args + arguments
            keywords = {**function.keywords, **keywords}
            function = function.func
        elif (
            arguments
            and type(function) is BuiltinMethodType
            and type(function.__self__) is Context
            and function.__name__ == "run"
        ):
            function, *rest = arguments
            arguments = tuple(rest)
        else:
            return operation_name(function)


class _Patch:
    """The replaced methods of the backend, with what was there before."""

    def __init__(self, inside: AnyioInside) -> None:
        self._backend = inside.backend
        self._replacements = _replacements(inside)
        self._before = {name: vars(inside.backend)[name] for name in self._replacements}
        for name, replacement in self._replacements.items():
            setattr(self._backend, name, replacement)

    def undo(self) -> None:
        for name, replacement in self._replacements.items():
            # Else somebody has put theirs on top, which may call ours: without routes ours does
            # nothing but call what was there before.
            if vars(self._backend)[name] is replacement:
                setattr(self._backend, name, self._before[name])


_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
_routes: list[_Route] = []  # the last one counts; under _lock
_patch: _Patch | None = None  # under _lock
# What _routes says, for readers without the lock: replaced as a whole, never changed. An id is
# taken by another loop once its own is gone: hence the look at the reference.
_by_loop: dict[int, _Route] = {}
_elsewhere: _Route | None = None


def patch_anyio(
    coordinator: Coordinator, loop: asyncio.AbstractEventLoop | None = None
) -> Callable[[], None]:
    """From now on what anyio's asyncio backend runs in worker threads runs on the coordinator.

    loop: only calls made on that loop; None: those of all loops that have no patch of their own.
    Returns what undoes it, which may be called more than once, from any thread. Of several for the
    same loop the last that has not been undone counts, whatever the order. Calls under way go on.

    ImportError without anyio; RuntimeError for an anyio that has changed inside; then nothing has
    been replaced. Any thread; the first one blocks for some milliseconds.
    """
    global _patch
    route = _Route(coordinator, None if loop is None else weakref.ref(loop))
    with _lock:
        if _patch is None:
            _patch = _Patch(AnyioInside())
        _routes.append(route)
        _publish()

    def undo() -> None:
        global _patch
        with _lock:
            if route in _routes:
                _routes.remove(route)
                _publish()
            if not _routes and _patch is not None:
                _patch.undo()
                _patch = None

    return undo


def _publish() -> None:
    global _by_loop, _elsewhere
    # of a loop that has gone nothing can come any more, though nobody said so
    _routes[:] = [each for each in _routes if each.loop is None or each.loop() is not None]
    elsewhere = None
    by_loop: dict[int, _Route] = {}
    for route in _routes:
        if route.loop is None:
            elsewhere = route
        else:
            loop = route.loop()
            if loop is not None:
                by_loop[id(loop)] = route
    _by_loop, _elsewhere = by_loop, elsewhere


def _find(loop: asyncio.AbstractEventLoop) -> _Route | None:
    route = _by_loop.get(id(loop))
    if route is not None and route.loop is not None and route.loop() is loop:
        return route
    return _elsewhere


def _replacements(inside: AnyioInside) -> dict[str, classmethod[Any, Any, Any]]:
    """The methods that take the place of anyio's, by name."""
    backend = inside.backend
    scope_class, limiter_class = inside.scope_class, inside.limiter_class
    would_block, library, thread_values = inside.would_block, inside.library, inside.thread_values
    seat_for = inside.seat
    new_token = _core.submit
    original = backend.run_sync_in_worker_thread
    original_async = backend.run_async_from_thread
    original_sync = backend.run_sync_from_thread

    def call(seat: dict[str, object], function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        # On the worker, which belongs to no loop of anyio's before and after.
        values = thread_values.__dict__
        values.update(seat)
        try:
            return function(*args)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, _STOPS):
                raise
            raise _Raised(error) from None
        finally:
            for name in seat:
                del values[name]

    def submit(
        route: _Route,
        loop: asyncio.AbstractEventLoop,
        scope: Any,
        function: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> Token[Any]:
        seat = seat_for(loop)
        seat["current_cancel_scope"] = scope
        seat[_CALLER] = threading.get_ident()
        name = _name(function, args)
        call_args = (seat, function, args)
        if library is None:
            return new_token(runtime, route.coordinator, name, NO_TAGS, call, call_args, {})
        # the context is copied at the submission: there, no async library runs
        reset = library.set(None)
        try:
            return new_token(runtime, route.coordinator, name, NO_TAGS, call, call_args, {})
        finally:
            library.reset(reset)

    async def run(
        route: _Route,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool,
        limiter: Any,
    ) -> Any:
        # limiter: None: the caller has its place already
        error: BaseException | None = None
        task = asyncio.current_task()
        if limiter is not None:
            # As `async with limiter`, which would give the loop a turn of its own once the place
            # is taken; the call itself does so anyway.
            await backend.checkpoint_if_cancelled()
            try:
                limiter.acquire_on_behalf_of_nowait(task)
            except would_block:
                await limiter.acquire_on_behalf_of(task)
        try:
            with scope_class(shield=not abandon_on_cancel) as scope:
                parent = scope._parent_scope
                told = scope if abandon_on_cancel or parent is None else parent
                token = submit(route, loop, told, function, args)
                if abandon_on_cancel:
                    await _ended(token, loop)
                elif token.done():
                    await asyncio.sleep(0)
                try:
                    return await token
                except _Raised as raised:
                    error = raised.error
                _raise_again(error)
        finally:
            error = None  # it holds this frame
            if limiter is not None:
                limiter.release_on_behalf_of(task)

    async def run_within(limiter: Any, held: Coroutine[Any, Any, Any]) -> Any:
        # not one of anyio's own limiters: nothing is known of it but this
        try:
            await backend.checkpoint_if_cancelled()
            async with limiter:
                return await held
        finally:
            held.close()

    def run_sync_in_worker_thread(
        cls: type,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,
        limiter: Any = None,
    ) -> Coroutine[Any, Any, Any]:
        loop = asyncio.get_running_loop()
        route = _find(loop)
        if route is None:
            return original(func, args, abandon_on_cancel, limiter)  # type: ignore[no-any-return]
        limiter = limiter or backend.current_default_thread_limiter()
        if type(limiter) is limiter_class:
            return run(route, loop, func, args, abandon_on_cancel, limiter)
        return run_within(limiter, run(route, loop, func, args, abandon_on_cancel, None))

    def from_worker(
        method: Callable[..., Any], func: Callable[..., Any], args: tuple[Any, ...], token: object
    ) -> Any:
        worker = _core.current_worker()
        if worker is None:
            return method(func, args, token)
        if thread_values.__dict__.get(_CALLER) == threading.get_ident():
            raise RuntimeError(
                "anyio.from_thread would wait for ever: it needs the event loop, whose own thread "
                "runs this function, since it was called inside tokengate.testing.inline()"
            )
        # What it waits for may need a worker itself.
        worker.step_aside()
        try:
            return method(func, args, token)
        finally:
            worker.step_back()

    def run_async_from_thread(
        cls: type, func: Callable[..., Any], args: tuple[Any, ...], token: object
    ) -> Any:
        return from_worker(original_async, func, args, token)

    def run_sync_from_thread(
        cls: type, func: Callable[..., Any], args: tuple[Any, ...], token: object
    ) -> Any:
        return from_worker(original_sync, func, args, token)

    made: tuple[Any, ...] = (run_sync_in_worker_thread, run_async_from_thread, run_sync_from_thread)
    return {each.__name__: classmethod(each) for each in made}


async def _ended(token: Token[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Until the token has ended; cancelled, it is cancelled too."""
    # anyio cancels a task that waits for a future only while that is not done: what has a result
    # then gets it. It knows futures by their class, and tokens are of another.
    ended = loop.create_future()

    def end(_: object) -> None:
        if not ended.done():
            ended.set_result(None)

    token.add_done_callback(end)
    try:
        await ended
    except asyncio.CancelledError:
        token.cancel()
        token.forgive()  # where it had failed at this moment: nobody asks any more
        raise


def _raise_again(error: BaseException) -> NoReturn:
    try:
        if isinstance(error, StopIteration):
            raise RuntimeError("coroutine raised StopIteration") from error
        raise error
    finally:
        del error  # it holds this frame
