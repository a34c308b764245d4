"""What an operation may do: the values of its policy, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict

from tokengate._core import Policy, Terms

__all__ = ["UNSET", "Overflow", "Policies", "Policy", "Unset", "asked_terms", "checked_policy"]

Overflow = Literal["reject", "shed_oldest", "block"]

MOST = 2**31 - 1  # of what is counted, and of priorities either way
LONGEST = 100 * 365 * 86_400.0  # s; longer timeouts mean none, and would not fit the clock


class Policies(TypedDict, total=False):
    """The arguments that make a policy, one by one."""

    limit: int | None
    max_waiting: int | None
    overflow: Overflow
    priority: int
    timeout: float | None
    run_timeout: float | None
    key: Callable[..., Any] | None
    key_limit: int


class Unset:
    """Stands for an argument that was not given, where None says something."""

    def __repr__(self) -> str:
        return "<as the operation has it>"


UNSET = Unset()


def checked_policy(base: Policy | None = None, **values: Any) -> Policy:
    """`base` with other values; TypeError or ValueError, naming it, for what a value cannot be."""
    unknown = values.keys() - Policies.__optional_keys__
    if unknown:
        known = ", ".join(sorted(Policies.__optional_keys__))
        raise TypeError(f"{sorted(unknown)[0]!r} is not part of a policy; expected some of {known}")
    for name in ("limit", "max_waiting"):
        if values.get(name) is not None:
            _count(name, values[name])
    if "key_limit" in values:
        _count("key_limit", values["key_limit"])
    if "overflow" in values and values["overflow"] not in ("reject", "shed_oldest", "block"):
        raise ValueError(
            f"overflow={values['overflow']!r}: expected 'reject', 'shed_oldest' or 'block'"
        )
    if "priority" in values:
        _priority(values["priority"])
    for name in ("timeout", "run_timeout"):
        if name in values:
            values[name] = _timeout(name, values[name])
    if "key" in values:
        _key(values["key"])
    return Policy(**{**(base.as_dict() if base is not None else {}), **values})


def asked_terms(
    priority: int | None,
    timeout: float | Unset | None,
    run_timeout: float | Unset | None,
    key: Callable[..., Any] | Unset | None,
) -> Terms:
    """What single calls ask for on top of their operation's policy; errors as `checked_policy`."""
    if priority is not None:
        _priority(priority)
    if not isinstance(key, Unset):
        _key(key)
    return Terms(
        _asked_ns("timeout", timeout),
        _asked_ns("run_timeout", run_timeout),
        None if isinstance(key, Unset) else key,
        not isinstance(key, Unset),
        priority or 0,
        priority is not None,
    )


def _asked_ns(name: str, value: float | Unset | None) -> int:
    if isinstance(value, Unset):
        return -1
    seconds = _timeout(name, value)
    return 0 if seconds is None else max(1, int(seconds * 1e9))


def _count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        or_none = "" if name == "key_limit" else " or None"
        raise TypeError(f"{name}={value!r}: expected a whole number{or_none}")
    if not 1 <= value <= MOST:
        none = "" if name == "key_limit" else "; None means no such limit"
        raise ValueError(f"{name}={value!r}: expected 1 to {MOST}{none}")


def _priority(value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"priority={value!r}: expected a whole number; higher goes first")
    if not -MOST <= value <= MOST:
        raise ValueError(f"priority={value!r}: expected -{MOST} to {MOST}")


def _timeout(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected seconds as a number, or None")
    if value != value or value <= 0:
        raise ValueError(f"{name}={value!r}: expected more than 0 seconds, or None for no limit")
    return None if value > LONGEST else max(float(value), 1e-9)


def _key(value: Any) -> None:
    if value is not None and not callable(value):
        raise TypeError(
            f"key={value!r}: expected a callable that takes the call's arguments and gives its key"
        )
