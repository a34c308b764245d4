"""Which coordinator runs a call: the default one, or the one chosen with `use`."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from contextvars import Token as Reset
from types import TracebackType
from typing import TypedDict, Unpack

from tokengate import _core, machine
from tokengate.coordinator import Coordinator
from tokengate.machine.pinning import Pin
from tokengate.settings import ProfileSource
from tokengate.token import Token

__all__ = ["configure_default", "get_coordinator", "runtime", "use"]

_chosen: ContextVar[Coordinator] = ContextVar("tokengate.coordinator")


class _Default(Coordinator):
    """The one that is made when the package is imported.

    An import must not fail for what the environment says of CPUs and workers: nothing would run
    then, the doctor neither. What is wrong is told as a warning, and the system's own answer taken,
    or the built-in one.
    """

    def _count_threads(self, asked: int | None) -> int:
        try:
            return super()._count_threads(asked)
        except ValueError as error:
            if asked is not None:
                raise
            _warn(error, machine.DEFAULT_THREAD_WORKERS)
            return machine.DEFAULT_THREAD_WORKERS

    def _count_cpus(self) -> int:
        try:
            return super()._count_cpus()
        except ValueError as error:
            count = machine.cpu_count_without_override()
            _warn(error, count)
            return count


def _warn(error: ValueError, instead: int) -> None:
    warnings.warn(
        f"{error}; the default coordinator goes by {instead} instead",
        RuntimeWarning,
        stacklevel=3,
    )


_default: Coordinator = _Default()

runtime: _core.Runtime = _core.Runtime(Token, _chosen, _default)


class Settings(TypedDict, total=False):
    """The arguments of `Coordinator`, one by one."""

    thread_workers: int | None
    process_workers: int | None
    interpreter_workers: int | None
    pin: Pin
    loop_lag_target: float | None
    stop_timeout: float
    name: str
    profile: ProfileSource | None


def get_coordinator() -> Coordinator:
    """The coordinator that calls made here run on: the innermost `use`, else the default one."""
    return _chosen.get(_default)


def configure_default(**settings: Unpack[Settings]) -> Coordinator:
    """Set up the default coordinator; takes `Coordinator`'s arguments, returns it.

    RuntimeError once it is in use: call this first, or `stop()` it before.
    """
    _default._configure(**settings)
    return _default


class use:  # noqa: N801 - reads like the statement it stands for
    """``with use(coordinator):`` lets calls made inside run on that coordinator.

    Also inside ``async`` code, where it holds for the current task and those it starts; tokens
    created inside carry it into the functions they run. TypeError for anything that is not a
    coordinator.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        if not isinstance(coordinator, Coordinator):
            raise TypeError(f"use() needs a Coordinator, got {coordinator!r}")
        self._coordinator = coordinator
        self._resets: list[Reset[Coordinator]] = []

    def __enter__(self) -> Coordinator:
        self._resets.append(_chosen.set(self._coordinator))
        return self._coordinator

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _chosen.reset(self._resets.pop())
