"""TokenGate as the benchmarks use it: found installed or in the checkout beside this folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from _harness import Missing

if TYPE_CHECKING:
    from tokengate import GuardedFunction

P = ParamSpec("P")
R = TypeVar("R")


def load(name: str = "tokengate") -> ModuleType:
    """The package, or a module of it; an installed one is preferred to the checkout's.

    Raises `Missing` when neither can be imported whole, with the import's own words.
    """
    root = str(Path(__file__).resolve().parent.parent)
    if root not in sys.path:
        sys.path.append(root)
    try:
        importlib.import_module("tokengate").task_token_guard  # noqa: B018
        return importlib.import_module(name)
    except (ImportError, AttributeError) as reason:
        raise Missing(
            f"{name} cannot be imported ({reason}): install it, or build it in place, and run again"
        ) from None


def guard(function: Callable[P, R], operation: str) -> GuardedFunction[P, R]:
    """`function` guarded as `operation`. Raises `Missing` without TokenGate."""
    load()
    from tokengate import task_token_guard

    return task_token_guard(operation_type=operation)(function)
