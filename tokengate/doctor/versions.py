"""Versions of what meets in this process: Python, the package and its build, its neighbours."""

from __future__ import annotations

import platform
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version

from tokengate import __version__, _core

__all__ = ["NEIGHBOURS", "is_older", "neighbours", "python", "tokengate"]

NEIGHBOURS = ("psutil", "uvloop", "anyio", "numpy", "threadpoolctl", "cloudpickle")
"""What the package uses or meets, where it is installed."""


def python() -> dict[str, str]:
    """The interpreter and what it stands on."""
    kinds = []
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        kinds.append("free-threaded")
    if hasattr(sys, "gettotalrefcount"):
        kinds.append("debug")
    library = " ".join(platform.libc_ver()).strip()
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "build": ", ".join(kinds) or "with the GIL",
        "compiler": platform.python_compiler(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": library or "unknown",
        "executable": sys.executable or "unknown",
    }


def tokengate() -> dict[str, str]:
    """TokenGate itself, and what its core was built with."""
    return {"version": __version__, **_core.build_info()}


def neighbours() -> dict[str, str | None]:
    """Name and version of each of `NEIGHBOURS`; None: not installed. Imports none of them."""
    found: dict[str, str | None] = {}
    for name in NEIGHBOURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def is_older(found: str, wanted: tuple[int, ...]) -> bool:
    """Whether a version such as ``0.22.1`` is older than that; False if it cannot be told."""
    parts: list[int] = []
    for part in found.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return bool(parts) and tuple(parts) < wanted
