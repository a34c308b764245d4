"""What `import tokengate` gives inside a worker of the interpreter lane, where the core cannot be.

Modules that guard functions are imported there as they are, so all public names exist. A guarded
function called there runs at once, in place. What needs a coordinator can be named, imported and
made, but not used.

Executed as the module `tokengate` itself: it imports only what needs neither core nor coordinator.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import ContextVar
from time import monotonic_ns
from types import MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any

from tokengate.errors import (
    CoordinatorStopped,
    FunctionExited,
    GateFull,
    LaneUnavailable,
    OperationQuarantined,
    TokenCancelled,
    TokenDeadlock,
    TokenExpired,
    TokenGateError,
    TokenKilled,
    WorkerDied,
)
from tokengate.lanes.child import CurrentToken
from tokengate.lanes.travel import travels

__all__ = [
    "Coordinator",
    "CoordinatorStopped",
    "Executor",
    "FunctionExited",
    "GateFull",
    "GuardedFunction",
    "Installation",
    "LaneUnavailable",
    "OperationQuarantined",
    "Stats",
    "Token",
    "TokenCancelled",
    "TokenDeadlock",
    "TokenExpired",
    "TokenGateError",
    "TokenGroup",
    "TokenKilled",
    "TokenState",
    "Topology",
    "WorkerDied",
    "__version__",
    "as_completed",
    "checkpoint",
    "configure_default",
    "current_token",
    "deadline",
    "gather",
    "get_coordinator",
    "install",
    "task_token_guard",
    "topology",
    "travels",
    "use",
]

_deadline_var: ContextVar[int] = ContextVar("tokengate.deadline")  # monotonic ns
_server: Any = None  # what runs here, put in by `lanes.interior`
_where = "another interpreter"


def current_token() -> CurrentToken | None:
    """The token whose function runs here, as far as it is known: its number, operation, tags."""
    if _server is None or _server.current is None:
        return None
    call, number, until = _server.current
    return CurrentToken(call, number, until, _where)


def checkpoint() -> None:
    """Raise `TokenCancelled` if the token that runs here has ended."""
    if _server is not None and _server.ending:
        raise TokenCancelled(f"{current_token()!r} has ended: nobody waits for this run any more")


class deadline:  # noqa: N801 - reads like the statement it stands for
    """Calls made inside ``with deadline(seconds):`` expire if it has passed before they begin."""

    def __init__(self, seconds: float) -> None:
        self._until = monotonic_ns() + int(seconds * 1e9)
        self._resets: list[Any] = []

    def __enter__(self) -> deadline:
        outer = _deadline_var.get(self._until)
        self._resets.append(_deadline_var.set(min(self._until, outer)))
        return self

    def __exit__(self, *_: object) -> None:
        _deadline_var.reset(self._resets.pop())


class Token:
    """A call that was made here: it has run already."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        self._value: Any = None
        self._error: BaseException | None = None
        until = _deadline_var.get(0)
        try:
            if until and until <= monotonic_ns():
                raise TokenExpired(f"{_name(fn)} was called after its deadline")
            self._value = fn(*args, **kwargs)
        except TokenCancelled:
            raise  # meant for the token that runs here
        except BaseException as error:
            self._error = error

    def __class_getitem__(cls, _: object) -> type[Token]:
        return cls

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result()
        yield  # what makes it a generator

    def result(self, timeout: float | None = None) -> Any:
        """What the function returned, or raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the function raised, or None."""
        return self._error

    def done(self) -> bool:
        """True."""
        return True

    def cancelled(self) -> bool:
        """False: it has run."""
        return False

    def cancel(self, msg: object = None) -> bool:
        """False: it has run."""
        return False

    def kill(self, reason: str = "killed") -> bool:
        """False: it has run."""
        return False


class GuardedFunction:
    """A guarded function: its calls run here, at once."""

    def __init__(self, fn: Any, operation: str, tags: Any, lane: str, kind: type | None) -> None:
        functools.update_wrapper(self, fn)
        self.__wrapped__ = fn
        self.operation = operation
        self.tags = tags
        self.lane = lane
        self._kind = kind

    def __class_getitem__(cls, _: object) -> type[GuardedFunction]:
        return cls

    def __get__(self, instance: Any, owner: type | None = None) -> GuardedFunction:
        if self._kind is classmethod:
            instance = owner if owner is not None else type(instance)
        if self._kind is staticmethod or instance is None:
            return self
        bound = MethodType(self.__wrapped__, instance)
        return GuardedFunction(bound, self.operation, self.tags, self.lane, staticmethod)

    def __call__(self, *args: Any, **kwargs: Any) -> Token:
        """Run it."""
        return Token(self.__wrapped__, args, kwargs)

    def options(self, **_: Any) -> GuardedFunction:
        """The same function: options are for those that wait for a place."""
        return self

    def map(
        self,
        iterable: Iterable[Any],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        tokens: bool = False,
        **constant: Any,
    ) -> Iterator[Any]:
        """The results for each argument, in order, each run when it is asked for."""
        calls = ((each,) for each in iterable)
        return self._map(calls, return_exceptions, tokens, constant)

    def starmap(
        self,
        iterable: Iterable[Any],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        tokens: bool = False,
        **constant: Any,
    ) -> Iterator[Any]:
        """The same for tuples of arguments."""
        return self._map(map(tuple, iterable), return_exceptions, tokens, constant)

    def _map(
        self,
        calls: Iterable[tuple[Any, ...]],
        return_exceptions: bool,
        tokens: bool,
        constant: dict[str, Any],
    ) -> Iterator[Any]:
        for args in calls:
            token = self(*args, **constant)
            error = token.exception()
            yield token if tokens else error if error and return_exceptions else token.result()


def task_token_guard(operation_type: Any = None, tags: Any = None, **options: Any) -> Any:
    """The decorator, where calls run in place: policies are the coordinator's, and hold there."""
    if callable(operation_type) or isinstance(operation_type, (classmethod, staticmethod)):
        return _guard(operation_type, None, MappingProxyType({}), "thread")
    found, lane = MappingProxyType(dict(tags or {})), options.get("lane", "thread")
    return lambda fn: _guard(fn, operation_type, found, lane)


def _guard(fn: Any, operation: str | None, tags: Any, lane: str) -> GuardedFunction:
    kind = type(fn) if isinstance(fn, (classmethod, staticmethod)) else None
    fn = fn.__func__ if kind is not None else fn
    return GuardedFunction(fn, operation or _name(fn), tags, lane, kind)


def _name(fn: Any) -> str:
    # what `tokengate.naming` says, which takes long to import
    while isinstance(fn, functools.partial):
        fn = fn.func
    of = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{of.__module__}.{of.__qualname__}"


def _unusable(name: str) -> LaneUnavailable:
    return LaneUnavailable(
        f"tokengate.{name} cannot be used inside a worker of the interpreter lane: coordinators "
        "are in the main interpreter, and guarded functions called here run at once"
    )


class _Elsewhere:
    """Can be imported and made, where a module does so, but not used."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __class_getitem__(cls, _: object) -> type[_Elsewhere]:
        return cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _unusable(f"{type(self).__name__}.{name}")

    def __enter__(self) -> Any:
        raise _unusable(type(self).__name__)

    def __exit__(self, *_: object) -> None:
        raise _unusable(type(self).__name__)

    async def __aenter__(self) -> Any:
        raise _unusable(type(self).__name__)

    async def __aexit__(self, *_: object) -> None:
        raise _unusable(type(self).__name__)


class Coordinator(_Elsewhere):
    """See `_Elsewhere`."""


class Executor(_Elsewhere):
    """See `_Elsewhere`."""


class Installation(_Elsewhere):
    """See `_Elsewhere`."""


class Stats(_Elsewhere):
    """See `_Elsewhere`."""


class TokenGroup(_Elsewhere):
    """See `_Elsewhere`."""


class TokenState(_Elsewhere):
    """See `_Elsewhere`."""


class Topology(_Elsewhere):
    """See `_Elsewhere`."""


class use:  # noqa: N801 - reads like the statement it stands for
    """Chooses nothing: calls run here."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def __enter__(self) -> Any:
        return self._coordinator

    def __exit__(self, *_: object) -> None:
        pass


def get_coordinator() -> Coordinator:
    """One that cannot be used."""
    return Coordinator()


def configure_default(**_: Any) -> Coordinator:
    """One that cannot be used."""
    return Coordinator()


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise _unusable(name)

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


as_completed: Callable[..., Any] = _refusing("as_completed")
gather: Callable[..., Any] = _refusing("gather")
install: Callable[..., Any] = _refusing("install")
topology: Callable[..., Any] = _refusing("topology")


class _NoCore:
    """Says why, where something of the package is imported that needs the core."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "tokengate._core":
            raise ImportError(
                "inside a worker of the interpreter lane only the names of `tokengate` itself are "
                "there; tokengate._core runs in the main interpreter of a process only",
                name=name,
            )


sys.meta_path.insert(0, _NoCore())


if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        if name == "__version__":
            from importlib.metadata import version

            return version("py-tokengate")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
