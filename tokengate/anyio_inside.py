"""What `anyio_backend` relies on inside anyio, found and checked before anything is replaced."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

__all__ = ["AnyioInside"]

PATIENCE = 10.0  # seconds for a few turns of a loop; who takes longer will never answer

_PARAMETERS = {
    "AsyncIOBackend": {
        "run_sync_in_worker_thread": ["func", "args", "abandon_on_cancel", "limiter"],
        "run_async_from_thread": ["func", "args", "token"],
        "run_sync_from_thread": ["func", "args", "token"],
        "check_cancelled": [],
        "current_default_thread_limiter": [],
        "checkpoint_if_cancelled": [],
        "cancel_shielded_checkpoint": [],
    },
    "CancelScope": {"__init__": ["self", "deadline", "shield"]},
    "CapacityLimiter": {
        "acquire_on_behalf_of": ["self", "borrower"],
        "acquire_on_behalf_of_nowait": ["self", "borrower"],
        "release_on_behalf_of": ["self", "borrower"],
    },
}


class AnyioInside:
    """The parts of anyio's asyncio backend that are replaced or used, as they are at this moment.

    ImportError where there is no anyio; RuntimeError, which names its version, what was expected
    and what was found, for an anyio that works otherwise than the one that was studied: the names
    and parameters are compared, and one of its own worker threads is asked what it finds there.
    Blocks for some milliseconds, on a thread of its own.
    """

    def __init__(self) -> None:
        try:
            import anyio
        except ImportError as error:
            raise ImportError(
                "anyio=True needs anyio (4.4 or newer), which is not installed here"
            ) from error
        try:
            self.version: str = version("anyio")
        except PackageNotFoundError:
            self.version = "of unknown version"
        module = self._module("anyio._backends._asyncio")
        common = self._module("anyio._core._eventloop")
        self.backend: Any = self._part(module, "AsyncIOBackend")
        self.scope_class: Any = self._part(module, "CancelScope")
        self.limiter_class: Any = self._part(module, "CapacityLimiter")
        self.thread_values: Any = self._part(common, "threadlocals")
        self.would_block: type[Exception] = anyio.WouldBlock
        # until 4.10 a thread was told the loop and the backend, since then a token that has both
        self._token_class: Any = getattr(
            importlib.import_module("anyio.lowlevel"), "EventLoopToken", None
        )
        try:
            from sniffio import current_async_library_cvar

            self.library: Any = current_async_library_cvar
        except ImportError:  # anyio does without since 4.12
            self.library = None
        self._compare_parameters()
        self._compare_conduct()

    def seat(self, loop: asyncio.AbstractEventLoop) -> dict[str, object]:
        """What a worker thread knows of the loop it works for."""
        if self._token_class is not None:
            return {"current_token": self._token_class(self.backend, loop)}
        return {"current_async_backend": self.backend, "current_token": loop}

    # -- names and parameters --------------------------------------------------------------------

    def _refuse(self, what: str, expected: object, found: object) -> NoReturn:
        raise RuntimeError(
            f"anyio {self.version} has changed inside, and anyio=True would not do what it says: "
            f"{what}: expected {expected}, found {found}. Use install() without anyio=True, or "
            "another version of anyio (4.4 or newer)"
        )

    def _module(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            self._refuse(name, "a module", error)

    def _part(self, module: Any, name: str) -> Any:
        try:
            return getattr(module, name)
        except AttributeError:
            self._refuse(f"{module.__name__}.{name}", "it to be there", "nothing of that name")

    def _compare_parameters(self) -> None:
        owners = {
            "AsyncIOBackend": self.backend,
            "CancelScope": self.scope_class,
            "CapacityLimiter": self.limiter_class,
        }
        for owner, methods in _PARAMETERS.items():
            for name, expected in methods.items():
                function = getattr(owners[owner], name, None)
                if function is None:
                    self._refuse(f"{owner}.{name}", "a method", "nothing of that name")
                found = list(inspect.signature(function).parameters)
                if found != expected:
                    self._refuse(f"the parameters of {owner}.{name}", expected, found)
        for name in ("_parent_scope", "cancel_called"):
            if not hasattr(self.scope_class(), name):
                self._refuse(f"CancelScope.{name}", "an attribute", "nothing of that name")
        if not isinstance(self.thread_values, threading.local):
            self._refuse("threadlocals", "a threading.local", repr(self.thread_values))

    # -- conduct ---------------------------------------------------------------------------------

    def _compare_conduct(self) -> None:
        results: list[tuple[str, object, object]] = []
        failures: list[BaseException] = []

        def observe() -> None:
            try:
                with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                    runner.run(self._observe(results))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=observe, name="tokengate-anyio-check", daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if thread.is_alive():
            failures.append(TimeoutError(f"no answer within {PATIENCE:g} seconds"))
        for what, expected, found in results:
            if found != expected:
                self._refuse(what, expected, found)
        if failures:
            self._refuse("a call in a worker thread", "its result", repr(failures[0]))

    async def _observe(self, results: list[tuple[str, object, object]]) -> None:
        """(what, expected, found) of anyio's own worker threads; runs on a loop of its own."""
        loop = asyncio.get_running_loop()
        values = self.thread_values
        limiter = self.limiter_class(1)
        if self.library is not None:
            self.library.set("asyncio")

        def look() -> tuple[dict[str, object], object, int]:
            library = None if self.library is None else self.library.get()
            return dict(values.__dict__), library, limiter.borrowed_tokens

        async def run(function: Callable[[], Any], abandon: bool) -> Any:
            return await self.backend.run_sync_in_worker_thread(
                function, (), abandon_on_cancel=abandon, limiter=limiter
            )

        for abandon in (False, True):
            with self.scope_class() as outer:
                found, library, borrowed = await run(look, abandon)
            scope = found.get("current_cancel_scope")
            if abandon and isinstance(scope, self.scope_class):
                results.append(("an abandoned call's scope", outer, scope._parent_scope))
                expected = {**self.seat(loop), "current_cancel_scope": scope}
            else:
                expected = {**self.seat(loop), "current_cancel_scope": outer}
            results.append(("what a worker thread is told", expected, found))
            results.append(("the async library a worker thread sees", None, library))
            results.append(("places of the limiter that a call takes", 1, borrowed))

        release = threading.Event()
        with self.scope_class() as outer:

            def hold() -> None:
                loop.call_soon_threadsafe(outer.cancel)
                release.wait(PATIENCE)

            try:
                await run(hold, True)
            finally:
                borrowed = limiter.borrowed_tokens
                release.set()
        results.append(("an abandoned call's cancellation", True, outer.cancelled_caught))
        results.append(("places of the limiter that an abandoned call keeps", 0, borrowed))
