"""Context variables that go along with calls to other processes and interpreters."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["current", "travels", "variables"]

T = TypeVar("T")

variables: dict[str, ContextVar[Any]] = {}


def travels(variable: ContextVar[T]) -> ContextVar[T]:
    """Declare that a context variable holds plain data, and let its value travel with calls.

    Tokens of the thread lane see the caller's whole context. To a worker outside this interpreter
    only the variables declared so go along, by value, each under its name. Call it where the
    variable is made, at the top of a module that the worker imports, too. A value that cannot be
    pickled raises TypeError at the call.

    Returns the variable. ValueError where another one of that name travels already.
    """
    if not isinstance(variable, ContextVar):
        raise TypeError(f"travels({variable!r}): expected a contextvars.ContextVar")
    known = variables.setdefault(variable.name, variable)
    if known is not variable:
        raise ValueError(f"another context variable named {variable.name!r} travels already")
    return variable


def current() -> dict[str, Any] | None:
    """The values that go along with a call made here; None: there are none."""
    if not variables:
        return None
    missing = object()
    found = {name: each.get(missing) for name, each in variables.items()}
    return {name: value for name, value in found.items() if value is not missing} or None
