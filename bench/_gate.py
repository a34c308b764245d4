"""TokenGate as the benchmarks use it: found installed or in the checkout beside this folder."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from _harness import Missing

if TYPE_CHECKING:
    from tokengate import GuardedFunction

ROOT = Path(__file__).resolve().parent.parent

P = ParamSpec("P")
R = TypeVar("R")


def load(name: str = "tokengate") -> ModuleType:
    """The package, or a module of it; an installed one is preferred to the checkout's.

    Raises `Missing` when neither can be imported whole, with the import's own words.
    """
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        importlib.import_module("tokengate").task_token_guard  # noqa: B018
        return importlib.import_module(name)
    except (ImportError, AttributeError) as reason:
        raise Missing(
            f"{name} cannot be imported ({reason}): install it, or build it in place, and run again"
        ) from None


def origin() -> str:
    """Which TokenGate is measured, without naming a path of this machine."""
    try:
        found = Path(load().__file__ or "").resolve().parent
    except Missing:
        return "none"
    if found == ROOT / "tokengate":
        return "of this checkout"
    try:
        return importlib.metadata.version("py-tokengate")
    except importlib.metadata.PackageNotFoundError:
        return "of another folder"


def guard(function: Callable[P, R], operation: str) -> GuardedFunction[P, R]:
    """`function` guarded as `operation`. Raises `Missing` without TokenGate."""
    load()
    from tokengate import task_token_guard

    return task_token_guard(operation_type=operation)(function)
