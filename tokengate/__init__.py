"""TokenGate: plain synchronous functions, run concurrently, awaited natively.

Decorate a function with `task_token_guard`; every call becomes a token that asyncio awaits like a
future, while a coordinator keeps its workers full underneath.
"""

from typing import TYPE_CHECKING

import tokengate._interpreter  # noqa: F401 - first: it refuses where the core could crash
from tokengate._core import current_token
from tokengate.coordinator import Coordinator
from tokengate.current import configure_default, get_coordinator, use
from tokengate.deadlines import checkpoint, deadline
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
from tokengate.executor import Executor
from tokengate.gathering import as_completed, gather
from tokengate.group import TokenGroup
from tokengate.guard import GuardedFunction, task_token_guard
from tokengate.install import Installation, install
from tokengate.lanes.travel import travels
from tokengate.machine import Topology, topology
from tokengate.stats import Stats
from tokengate.token import Token, TokenState

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

if TYPE_CHECKING:
    __version__: str
else:  # a checker that saw this would believe in every name

    def __getattr__(name: str) -> str:
        # asked for rarely, and importlib.metadata takes longer to import than everything here
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return version("py-tokengate")
            except PackageNotFoundError:
                return "0+unknown"  # a checkout that was never installed
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
