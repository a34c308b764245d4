"""The decorator that turns every call of a synchronous function into a token."""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from types import CodeType, MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from tokengate import _core
from tokengate.coordinator import Coordinator
from tokengate.current import runtime
from tokengate.lanes.catalogue import require_lane
from tokengate.mapping import MapCall
from tokengate.naming import frozen_tags, operation_name, reject_asynchronous
from tokengate.policy import UNSET, Overflow, Policy, Unset, asked_terms, checked_policy

if TYPE_CHECKING:
    from tokengate.token import Token

__all__ = ["GuardedFunction", "task_token_guard"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
TypeT = TypeVar("TypeT", bound=type)

# operation name -> the guarded function that defined it, so that a clash can name both
_definitions: weakref.WeakValueDictionary[str, GuardedFunction[Any, Any]] = (
    weakref.WeakValueDictionary()
)


class GuardedFunction(_core.GuardBase, Generic[P, R_co]):
    """A synchronous function whose calls become tokens. Made by `task_token_guard`.

    Calling it returns a `Token` at once, from any thread; nothing blocks. It binds like a function
    (methods, class and static methods), and counts as a coroutine function, so that frameworks
    await what it returns. The function itself is ``__wrapped__``.
    """

    __name__: str
    __qualname__: str
    __signature__: inspect.Signature
    __wrapped__: Callable[P, R_co]
    _kind: type | None
    _bound: tuple[GuardedFunction[Any, Any], object] | None

    def __init__(
        self,
        fn: Callable[P, R_co],
        operation: str,
        tags: Mapping[str, Any],
        policy: Policy,
        *,
        kind: type | None = None,
    ) -> None:
        functools.update_wrapper(self, fn, updated=())
        for key, value in getattr(fn, "__dict__", {}).items():
            # an attribute of theirs must not hide one of ours
            if not hasattr(GuardedFunction, key):
                self.__dict__.setdefault(key, value)
        self._set_up(runtime, fn, operation, tags, policy)
        self._kind = kind
        self._bound = None
        _look_like_coroutine_function(self, fn)

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Token[R_co]:
            """Call the function as a token. Any thread; does not block."""
            ...

    def __repr__(self) -> str:
        return f"<guarded {operation_name(self.__wrapped__)} as operation {self.operation!r}>"

    # A type checker knows the kind of a method by its first parameter alone: the class in a class
    # method, the instance in an ordinary one, anything else in a static one. As a callable, because
    # mypy does not look at what precedes a ParamSpec within GuardedFunction[...].
    @overload
    def __get__(
        self: Callable[Concatenate[TypeT, Q], object], instance: object, owner: TypeT
    ) -> GuardedFunction[Q, R_co]: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None) -> GuardedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, Q], object], instance: S, owner: type | None = None
    ) -> GuardedFunction[Q, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> GuardedFunction[P, R_co]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> GuardedFunction[..., Any]:
        """Bind like a function does."""
        if self._kind is staticmethod:
            return self
        if self._kind is classmethod:
            instance = owner if owner is not None else type(instance)
        if instance is None:
            return self
        view = self._view(MethodType(self.__wrapped__, instance))
        view._receive(instance)
        view._bound = (self, instance)
        return view

    def __eq__(self, other: object) -> bool:
        """Bound to the same object by the same guarded function, as with methods; else identity."""
        if not isinstance(other, GuardedFunction):
            return NotImplemented
        if self is other or self._bound is None or other._bound is None:
            return self is other
        return self._bound[0] is other._bound[0] and self._bound[1] is other._bound[1]

    def __hash__(self) -> int:
        if self._bound is None:
            return object.__hash__(self)
        return hash((id(self._bound[0]), id(self._bound[1])))

    def _declared(self) -> tuple[Mapping[str, Any], Policy]:
        known = _definitions.get(self.operation, self)
        return known._tags, known._policy

    def _signature(self) -> inspect.Signature:
        try:
            return inspect.signature(self.__wrapped__)
        except (TypeError, ValueError) as error:
            raise AttributeError(f"{self!r} has no signature that Python knows") from error

    def _view(self, fn: Callable[..., Any]) -> GuardedFunction[Any, R_co]:
        view: GuardedFunction[Any, R_co] = GuardedFunction.__new__(GuardedFunction)
        view.__dict__.update(self.__dict__)
        view.__wrapped__ = fn
        view._kind = staticmethod  # bound, or an instance's own: it binds no further
        view._bound = None
        view._copy(self, fn)
        return view

    def _on(self, coordinator: Coordinator) -> GuardedFunction[P, R_co]:
        view = self._view(self.__wrapped__)
        view._move(coordinator)
        return view

    def options(
        self,
        *,
        priority: int | None = None,
        timeout: float | Unset | None = UNSET,
        run_timeout: float | Unset | None = UNSET,
        key: Callable[..., Any] | Unset | None = UNSET,
        lane: str | None = None,
        tags: Mapping[str, Any] | None = None,
        coordinator: Coordinator | None = None,
    ) -> GuardedFunction[P, R_co]:
        """A view of this function for calls with other settings; the operation is the same.

        priority, timeout, run_timeout, key: for these calls, in place of the operation's own (for
        the last three None means none; tokens with a key go by the operation's priority). tags:
        replace the tags that its tokens show (the operation's weight stays what it was declared).
        coordinator: where its tokens run. lane: ``"thread"``, ``"process"``, ``"interpreter"`` or
        ``"auto"``; anything else, or one that cannot run here, raises `LaneUnavailable`.
        TypeError or ValueError for what these cannot be.
        """
        if lane is not None:
            require_lane(lane)
        if coordinator is not None and not isinstance(coordinator, Coordinator):
            raise TypeError(f"coordinator={coordinator!r}: expected a Coordinator")
        view = self._view(self.__wrapped__)
        view._kind = self._kind
        if lane is not None:
            view._lay(lane)
        if tags is not None:
            view._retag(frozen_tags(tags))
        if coordinator is not None:
            view._move(coordinator)
        if priority is not None or any(
            not isinstance(asked, Unset) for asked in (timeout, run_timeout, key)
        ):
            view._ask(asked_terms(priority, timeout, run_timeout, key))
        return view

    @overload
    def map(
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        tokens: Literal[False] = False,
        **constant_kwargs: Any,
    ) -> MapCall[R_co]: ...
    @overload
    def map(
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[True],
        tokens: Literal[False] = False,
        **constant_kwargs: Any,
    ) -> MapCall[R_co | BaseException]: ...
    @overload
    def map(
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        tokens: Literal[True],
        **constant_kwargs: Any,
    ) -> MapCall[Token[R_co]]: ...
    def map(
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        tokens: bool = False,
        **constant_kwargs: Any,
    ) -> MapCall[Any]:
        """Call the function once for every item, as tokens, a bounded number at a time.

        ``await f.map(items)`` gives the list of results, in the order of the items. ``async for``
        yields them as they come, in order, or with ``ordered=False`` as they finish; off any event
        loop ``for`` does the same. in_flight: the most calls under way, and, when iterated, the
        most tokens in memory (None: what the coordinator's profile says, else 1,024 when iterated,
        8,192 when awaited). constant_kwargs go to every call. tokens: yield the finished tokens
        instead, with ``.index`` and ``.args``.

        The first failure is raised and the rest cancelled, unless return_exceptions, which gives
        the exception in place of the result. Leaving the iteration early: ``async with
        f.map(...) as results`` (or ``aclose()``) cancels what has not started and waits for what
        runs. The iterable is advanced on the consumer's thread; asynchronous iterables work on a
        loop.
        """
        return MapCall(
            self, iterable, False, in_flight, ordered, return_exceptions, tokens, constant_kwargs
        )

    @overload
    def starmap(
        self,
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        tokens: Literal[False] = False,
        **constant_kwargs: Any,
    ) -> MapCall[R_co]: ...
    @overload
    def starmap(
        self,
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: Literal[True],
        tokens: Literal[False] = False,
        **constant_kwargs: Any,
    ) -> MapCall[R_co | BaseException]: ...
    @overload
    def starmap(
        self,
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        tokens: Literal[True],
        **constant_kwargs: Any,
    ) -> MapCall[Token[R_co]]: ...
    def starmap(
        self,
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        tokens: bool = False,
        **constant_kwargs: Any,
    ) -> MapCall[Any]:
        """`map` for items that are each a tuple of positional arguments."""
        return MapCall(
            self, iterable, True, in_flight, ordered, return_exceptions, tokens, constant_kwargs
        )


@overload
def task_token_guard(fn: Callable[P, R], /) -> GuardedFunction[P, R]: ...
@overload
def task_token_guard(
    operation_type: str | None = None,
    tags: Mapping[str, Any] | None = None,
    *,
    lane: str = "thread",
    limit: int | None = None,
    max_waiting: int | None = None,
    overflow: Overflow = "reject",
    priority: int = 0,
    timeout: float | None = None,
    run_timeout: float | None = None,
    key: Callable[..., Any] | None = None,
    key_limit: int = 1,
) -> Callable[[Callable[P, R]], GuardedFunction[P, R]]: ...
def task_token_guard(
    operation_type: Any = None,
    tags: Mapping[str, Any] | None = None,
    *,
    lane: str = "thread",
    limit: int | None = None,
    max_waiting: int | None = None,
    overflow: Overflow = "reject",
    priority: int = 0,
    timeout: float | None = None,
    run_timeout: float | None = None,
    key: Callable[..., Any] | None = None,
    key_limit: int = 1,
) -> Any:
    """Turn every call of a synchronous function into a token.

    Bare, or with arguments. operation_type: the name its tokens are counted under, by default
    ``"module.qualname"``; functions may share one. tags: ``{"weight": "light" | "medium" |
    "heavy"}`` says what a call is expected to cost until it has been measured; other keys are the
    user's own. lane: ``"thread"``; ``"process"``: in worker processes; ``"interpreter"``: in
    interpreters of this process, from Python 3.14 on; ``"auto"``: on threads until measurements
    say that processes gain. The guard goes above `classmethod` and `staticmethod`.

    The rest is the operation's policy (`Coordinator.configure` changes it later):

    limit: so many execute at once; a run that was abandoned counts until its function returns.
    max_waiting: so many may wait; beyond it, overflow: ``"reject"`` ends the new token KILLED with
    `GateFull`, ``"shed_oldest"`` ends the oldest waiting one so, ``"block"`` makes the caller wait
    for room (where that is an event loop's thread, RuntimeError is raised instead; `.map` waits for
    room under every overflow). priority: higher goes first; whatever waits behind a higher one all
    the time is served every two seconds. timeout: seconds from creation, run_timeout: from start,
    after which the token ends EXPIRED. key: takes the function's arguments and gives a hashable
    value; of tokens with equal values key_limit execute at once, in the order of their calls.

    Raises TypeError for an asynchronous or generator function and for what is not callable;
    TypeError or ValueError for an unknown weight, for what a policy cannot be, and for two
    different functions that give one operation two weights or two policies. Decorating the same
    function again replaces the first.
    """
    if callable(operation_type) or isinstance(operation_type, (classmethod, staticmethod)):
        return _guard(operation_type, None, NO_OPTIONS, NO_POLICY, "thread")
    if operation_type is not None and (not isinstance(operation_type, str) or not operation_type):
        raise TypeError(f"operation_type={operation_type!r}: expected a non-empty string")
    require_lane(lane)
    options = frozen_tags(tags)
    policy = checked_policy(
        limit=limit,
        max_waiting=max_waiting,
        overflow=overflow,
        priority=priority,
        timeout=timeout,
        run_timeout=run_timeout,
        key=key,
        key_limit=key_limit,
    )
    return lambda fn: _guard(fn, operation_type, options, policy, lane)


NO_OPTIONS = frozen_tags(None)
NO_POLICY = checked_policy()


def _guard(
    fn: Any, operation: str | None, tags: Mapping[str, Any], policy: Policy, lane: str
) -> GuardedFunction[Any, Any]:
    kind = None
    if isinstance(fn, (classmethod, staticmethod)):
        kind = type(fn)
        fn = fn.__func__
    if isinstance(fn, GuardedFunction):
        raise TypeError(f"{fn!r} is guarded already")
    if not callable(fn) or inspect.isclass(fn):
        raise TypeError(f"task_token_guard decorates a synchronous function, got {fn!r}")
    reject_asynchronous(fn)
    guard = GuardedFunction(fn, operation or operation_name(fn), tags, policy, kind=kind)
    guard._lay(lane)
    _define(guard)
    return guard


def _define(guard: GuardedFunction[Any, Any]) -> None:
    """Record who defined an operation; two functions must not contradict each other."""
    known = _definitions.get(guard.operation)
    if known is not None:
        mine, theirs = operation_name(guard.__wrapped__), operation_name(known.__wrapped__)
        if mine != theirs:
            for kind, own, other in _contradictions(guard, known):
                raise ValueError(
                    f"operation {guard.operation!r} has two {kind}: {other} from {theirs} and "
                    f"{own} from {mine}. Give both the same, or one of them another name."
                )
            if not guard._tags.get("weight") and guard._policy.as_dict() == NO_POLICY.as_dict():
                return  # the earlier one says more
    _definitions[guard.operation] = guard


def defined(op: Any) -> GuardedFunction[Any, Any] | None:
    """The guarded function that defined an operation, or `op` itself if it is one."""
    if isinstance(op, GuardedFunction):
        return op
    return _definitions.get(op) if isinstance(op, str) else None


def defined_names() -> list[str]:
    """The operations that decorators have defined so far."""
    return list(_definitions.keys())


def _contradictions(
    one: GuardedFunction[Any, Any], other: GuardedFunction[Any, Any]
) -> Iterator[tuple[str, str, str]]:
    """What both of them say about their operation, and not the same: kind, of one, of the other."""
    weights = one._tags.get("weight"), other._tags.get("weight")
    if None not in weights and weights[0] != weights[1]:
        yield "weights", repr(weights[0]), repr(weights[1])
    mine, theirs, usual = one._policy.as_dict(), other._policy.as_dict(), NO_POLICY.as_dict()
    if usual not in (mine, theirs):
        for name in usual:
            if mine[name] != theirs[name]:
                yield "policies", f"{name}={mine[name]!r}", f"{name}={theirs[name]!r}"


def _look_like_coroutine_function(guard: GuardedFunction[Any, Any], fn: Any) -> None:
    """Frameworks ask `inspect.iscoroutinefunction` whether to await; the answer must be yes."""
    own = guard.__dict__
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        mark(guard)
    else:
        # Python 3.11 has no mark and looks at the code flags of what resembles a function.
        # Delete with 3.11.
        own["_is_coroutine"] = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
        like = fn if isinstance(getattr(fn, "__code__", None), CodeType) else _template
        own["__code__"] = like.__code__.replace(
            co_flags=like.__code__.co_flags | inspect.CO_COROUTINE
        )
        own["__defaults__"] = like.__defaults__
        own["__kwdefaults__"] = like.__kwdefaults__
        own.setdefault("__name__", operation_name(fn).rpartition(".")[2])
        own.setdefault("__annotations__", {})


def _template(*args: Any, **kwargs: Any) -> None:
    """Lends its code object to callables that have none."""
