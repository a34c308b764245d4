"""What a callable is called, whether it may be guarded, and what its tags may be."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["NO_TAGS", "WEIGHTS", "frozen_tags", "operation_name", "reject_asynchronous"]

NO_TAGS: Mapping[str, Any] = MappingProxyType({})  # shared by all that have none
WEIGHTS = ("light", "medium", "heavy")


def operation_name(fn: Any) -> str:
    """``"module.qualname"`` of a callable; of a partial or an object, of what it calls."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    module = getattr(fn, "__module__", None) or type(fn).__module__
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{module}.{name}"


def reject_asynchronous(fn: Any) -> None:
    """TypeError for a function that would only hand back a coroutine or generator, unrun."""
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - an object to be called
    if inspect.iscoroutinefunction(inner):
        what, instead = "an `async def` function", "await it directly"
    elif inspect.isasyncgenfunction(inner):
        what, instead = "an asynchronous generator function", "iterate it directly"
    elif inspect.isgeneratorfunction(inner):
        what, instead = "a generator function", "guard a function that consumes it"
    else:
        return
    raise TypeError(
        f"{operation_name(fn)} is {what}: calling it runs nothing, so a worker has nothing to do. "
        f"TokenGate runs synchronous functions; {instead}."
    )


def frozen_tags(tags: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A read-only copy. TypeError or ValueError, naming the value, for what tags cannot be."""
    if tags is None:
        return NO_TAGS
    if not isinstance(tags, Mapping):
        raise TypeError(f"tags={tags!r}: expected a mapping such as {{'weight': 'heavy'}}")
    for key in tags:
        if not isinstance(key, str):
            raise TypeError(f"tags: the key {key!r} is not a string")
    weight = tags.get("weight", "light")
    if weight not in WEIGHTS:
        raise ValueError(
            f"tags: weight={weight!r} is unknown; expected one of {', '.join(map(repr, WEIGHTS))}"
        )
    return MappingProxyType(dict(tags)) if tags else NO_TAGS
