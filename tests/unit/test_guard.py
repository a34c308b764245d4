"""The decorator: what it takes, what it refuses, and what a guarded function looks like."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import operator
import threading
import typing
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tokengate import Coordinator, GuardedFunction, LaneUnavailable, Token, task_token_guard


def plain(x: int, *, y: int = 1) -> int:
    """Add."""
    return x + y


class CallableObject:
    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, x: int) -> int:
        return self.base + x


# -- what it takes ---------------------------------------------------------------------------------

TAKEN: list[tuple[str, Callable[..., Any], tuple[Any, ...], Any]] = [
    ("function", plain, (1,), 2),
    ("lambda", lambda x: x + 1, (1,), 2),
    ("builtin", len, ([1, 2],), 2),
    ("builtin without a signature", min, (2, 3), 2),
    ("builtin of a module", math.sqrt, (4,), 2),
    ("C method", "ab".__add__, ("c",), "abc"),
    ("unbound C method", str.upper, ("a",), "A"),
    ("partial", functools.partial(plain, y=5), (1,), 6),
    ("partial of a partial", functools.partial(functools.partial(plain), 1), (), 2),
    ("partial of a builtin", functools.partial(int, base=2), ("101",), 5),
    ("callable object", CallableObject(10), (1,), 11),
    ("bound method", CallableObject(10).__call__, (1,), 11),
    ("itemgetter", operator.itemgetter(1), ("ab",), "b"),
    ("lru_cache", functools.lru_cache(plain), (1,), 2),
    ("singledispatch", functools.singledispatch(plain), (1,), 2),
]


@pytest.mark.parametrize(
    ("fn", "args", "expected"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN]
)
async def test_takes_all_that_can_be_called(
    coordinator: Coordinator, fn: Callable[..., Any], args: tuple[Any, ...], expected: Any
) -> None:
    for guarded in (
        task_token_guard(fn),
        task_token_guard()(fn),
        task_token_guard(tags={"weight": "light"})(fn),
    ):
        assert isinstance(guarded, GuardedFunction)
        token = guarded(*args)
        assert isinstance(token, Token)
        assert await token == expected
        assert guarded.__wrapped__ is fn
        assert await guarded.starmap([args, args]) == [expected] * 2
        assert inspect.iscoroutinefunction(guarded)
        assert repr(guarded)


async def test_calls_of_every_shape(coordinator: Coordinator) -> None:
    @task_token_guard
    def shape(a: Any, /, b: Any, *args: Any, c: Any, d: Any = 4, **kwargs: Any) -> Any:
        return a, b, args, c, d, kwargs

    assert await shape(1, 2, c=3) == (1, 2, (), 3, 4, {})
    assert await shape(1, 2, 3, 4, c=5, e=6, a=7) == (1, 2, (3, 4), 5, 4, {"e": 6, "a": 7})
    assert await shape(1, b=2, c=3, self=4, fn=5, operation=6, tags=7) == (
        1, 2, (), 3, 4, {"self": 4, "fn": 5, "operation": 6, "tags": 7},
    )  # fmt: skip
    with pytest.raises(TypeError):
        await shape(1, 2)  # type: ignore[call-arg]


async def test_keyword_arguments_are_the_callers_no_more(
    single: Coordinator,
) -> None:
    @task_token_guard
    def keep(**kwargs: Any) -> dict[str, Any]:
        kwargs["added"] = True
        return kwargs

    mine = {"a": 1}
    first, second = await keep(**mine), await keep(**mine)
    assert mine == {"a": 1}
    assert first == second == {"a": 1, "added": True}


# -- what it looks like ----------------------------------------------------------------------------


def test_it_looks_like_what_it_guards() -> None:
    guarded = task_token_guard(plain)
    assert guarded.__name__ == "plain"
    assert guarded.__qualname__ == "plain"
    assert guarded.__module__ == plain.__module__
    assert guarded.__doc__ == "Add."
    assert guarded.__annotations__ == plain.__annotations__
    assert guarded.__wrapped__ is plain
    assert guarded.__signature__ == inspect.signature(plain)
    assert inspect.signature(guarded) == inspect.signature(plain)
    assert inspect.unwrap(guarded) is plain
    assert guarded.operation == f"{__name__}.plain"
    assert "plain" in repr(guarded)
    assert callable(guarded)


def test_it_counts_as_a_coroutine_function_and_the_function_does_not() -> None:
    guarded: Any = task_token_guard(plain)
    assert inspect.iscoroutinefunction(guarded)
    assert inspect.iscoroutinefunction(guarded.__call__)
    assert not inspect.iscoroutinefunction(plain)
    assert not inspect.isasyncgenfunction(guarded)
    assert not inspect.isgeneratorfunction(guarded)


def test_asyncios_own_question_is_answered_too() -> None:
    guarded = task_token_guard(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.14 wants inspect asked instead
        assert asyncio.iscoroutinefunction(guarded)
        assert not asyncio.iscoroutinefunction(plain)


def test_its_type_hints_are_the_functions_own() -> None:
    assert typing.get_type_hints(task_token_guard(plain)) == {"x": int, "y": int, "return": int}
    method = task_token_guard(CallableObject.__call__).__get__(CallableObject(1))
    assert typing.get_type_hints(method) == {"x": int, "return": int}


def test_its_source_is_found() -> None:
    assert "def plain" in inspect.getsource(task_token_guard(plain))


@pytest.mark.parametrize("fn", [row[1] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_the_signature_is_the_functions_own(fn: Callable[..., Any]) -> None:
    guarded = task_token_guard(fn)
    try:
        expected = inspect.signature(fn)
    except ValueError:  # some C functions have none
        with pytest.raises(ValueError, match="signature"):
            inspect.signature(guarded)
    else:
        assert inspect.signature(guarded) == expected


async def test_attributes_of_the_function_come_along_and_do_no_harm(
    coordinator: Coordinator,
) -> None:
    def marked(x: int) -> int:
        return x

    marked.role = "admin"  # type: ignore[attr-defined]
    for name in ("map", "options", "operation", "starmap", "_kind", "__call__", "__wrapped__"):
        setattr(marked, name, "the function's own")
    guarded = task_token_guard(marked)
    assert guarded.role == "admin"  # type: ignore[attr-defined]
    assert await guarded(1) == 1
    assert await guarded.map([1, 2]) == [1, 2]
    assert await guarded.starmap([(1,)]) == [1]
    assert await guarded.options()(1) == 1
    assert guarded.__wrapped__ is marked
    assert guarded.operation.endswith("marked")


async def test_attributes_of_a_callable_object_do_no_harm(coordinator: Coordinator) -> None:
    class Service:
        def __init__(self) -> None:
            self.options = {"retries": 3}
            self.map = "a map of the world"
            self.operation = "surgery"

        def __call__(self, x: int) -> int:
            return x

    guarded = task_token_guard(Service())
    assert await guarded(1) == 1
    assert await guarded.map([1, 2]) == [1, 2]
    assert await guarded.options()(1) == 1
    assert guarded.operation.endswith("Service")


async def test_calling_it_runs_nothing_on_the_callers_thread(
    single: Coordinator,
) -> None:
    ident = task_token_guard("where am I")(threading.get_ident)
    assert await ident() != threading.get_ident()


# -- what it refuses -------------------------------------------------------------------------------


async def a_coroutine_function() -> None: ...


async def a_class_coroutine_method(cls: type) -> None: ...


async def an_async_generator() -> AsyncIterator[int]:
    yield 1


def a_generator() -> Iterator[int]:
    yield 1


class AsyncCall:
    async def __call__(self) -> None: ...


class AsyncGeneratorCall:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


class GeneratorCall:
    def __call__(self) -> Iterator[int]:
        yield 1


class AsyncMethods:
    async def method(self) -> None: ...


ASYNCHRONOUS: list[tuple[str, Any]] = [
    ("coroutine function", a_coroutine_function),
    ("async generator", an_async_generator),
    ("generator", a_generator),
    ("partial of a coroutine function", functools.partial(a_coroutine_function)),
    ("bound coroutine method", AsyncMethods().method),
    ("unbound coroutine method", AsyncMethods.method),
    ("static coroutine method", staticmethod(a_coroutine_function)),
    ("class coroutine method", classmethod(a_class_coroutine_method)),
    ("object with async __call__", AsyncCall()),
    ("object with async generator __call__", AsyncGeneratorCall()),
    ("object with generator __call__", GeneratorCall()),
    ("partial of such an object", functools.partial(AsyncCall())),
    ("guarded function", task_token_guard(plain)),
    ("partial of a guarded function", functools.partial(task_token_guard(plain), 1)),
]


@pytest.mark.parametrize(
    "fn", [row[1] for row in ASYNCHRONOUS], ids=[row[0] for row in ASYNCHRONOUS]
)
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "with arguments"])
def test_what_runs_nothing_when_called_is_refused_at_decoration(fn: Any, bare: bool) -> None:
    with pytest.raises(TypeError):
        task_token_guard(fn) if bare else task_token_guard("some name")(fn)


def test_the_refusal_names_the_function_and_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"a_coroutine_function is an `async def` function.*await"):
        task_token_guard(a_coroutine_function)


@pytest.mark.parametrize("wrong", [5, 1.5, b"name", ["name"], object(), {"weight": "heavy"}, ""])
def test_a_name_must_be_a_text(wrong: Any) -> None:
    with pytest.raises(TypeError):
        task_token_guard(wrong)


@pytest.mark.parametrize("wrong", [5, None, "text", object()])
def test_what_cannot_be_called_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        task_token_guard("some name")(wrong)


def test_a_class_is_refused() -> None:
    with pytest.raises(TypeError):
        task_token_guard(CallableObject)
    with pytest.raises(TypeError):
        task_token_guard("some name")(CallableObject)


@pytest.mark.parametrize("weight", ["huge", "", "LIGHT", None, 1, ["heavy"], {"heavy": 1}])
def test_an_unknown_weight_is_refused_and_told(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"light.*medium.*heavy") as caught:
        task_token_guard(tags={"weight": weight})
    assert repr(weight) in str(caught.value)


@pytest.mark.parametrize("tags", ["heavy", ["weight"], 5, {1: "x"}, {None: "x"}])
def test_tags_that_are_none_are_refused(tags: Any) -> None:
    with pytest.raises(TypeError):
        task_token_guard(tags=tags)


@pytest.mark.parametrize("weight", ["light", "medium", "heavy"])
async def test_the_three_weights(coordinator: Coordinator, weight: str) -> None:
    guarded = task_token_guard(f"of weight {weight}", {"weight": weight})(plain)
    token = guarded(1)
    assert await token == 2
    assert token.tags == {"weight": weight}


async def test_tags_are_copied_and_may_hold_anything(coordinator: Coordinator) -> None:
    mine: dict[str, Any] = {"weight": "heavy", "owner": ["a", "b"], "nothing": None}
    guarded = task_token_guard("with tags", mine)(plain)
    mine["weight"] = "huge"
    token = guarded(1)
    await token
    assert token.tags == {"weight": "heavy", "owner": ["a", "b"], "nothing": None}


def test_an_unknown_lane_is_refused() -> None:
    for lane in ("cluster", "threads", "", None, 5):
        with pytest.raises(LaneUnavailable):
            task_token_guard("some name", lane=lane)(plain)  # type: ignore[arg-type]


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        task_token_guard("some name", limits=5)(plain)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        task_token_guard("some name", {}, "thread")(plain)  # type: ignore[call-overload]


# -- submit ----------------------------------------------------------------------------------------


async def test_submit_takes_the_same(coordinator: Coordinator) -> None:
    for _, fn, args, expected in TAKEN:
        assert await coordinator.submit(fn, *args) == expected
    assert await coordinator.submit(plain, 1, y=5) == 6
    assert await coordinator.submit(lambda **kwargs: kwargs, fn=1, self=2) == {"fn": 1, "self": 2}


@pytest.mark.parametrize(
    "fn", [row[1] for row in ASYNCHRONOUS[:6] + ASYNCHRONOUS[8:12]],
    ids=[row[0] for row in ASYNCHRONOUS[:6] + ASYNCHRONOUS[8:12]],
)  # fmt: skip
def test_submit_refuses_the_same(coordinator: Coordinator, fn: Any) -> None:
    with pytest.raises(TypeError):
        coordinator.submit(fn)
    assert coordinator.stats().totals.submitted == 0


@pytest.mark.parametrize("wrong", [None, 5, "text"])
def test_submit_refuses_what_cannot_be_called(coordinator: Coordinator, wrong: Any) -> None:
    with pytest.raises(TypeError):
        coordinator.submit(wrong)


async def test_submit_of_a_guarded_function_keeps_its_operation(coordinator: Coordinator) -> None:
    guarded = task_token_guard("submitted", {"weight": "heavy"})(plain)
    token = coordinator.submit(guarded, 1)
    assert await token == 2
    assert token.operation_type == "submitted"
    assert token.tags == {"weight": "heavy"}


async def test_submit_of_a_class(coordinator: Coordinator) -> None:
    made = await coordinator.submit(CallableObject, 5)
    assert made.base == 5
