"""TokenGate: plain synchronous functions, run concurrently, awaited natively.

Decorate a function with `task_token_guard`; every call becomes a token that asyncio awaits like a
future, while a coordinator keeps its workers full underneath.
"""

from importlib.metadata import PackageNotFoundError, version

from tokengate._core import current_token
from tokengate.coordinator import Coordinator
from tokengate.current import configure_default, get_coordinator, use
from tokengate.errors import (
    CoordinatorStopped,
    FunctionExited,
    GateFull,
    LaneUnavailable,
    TokenExpired,
    TokenGateError,
    TokenKilled,
)
from tokengate.gathering import as_completed, gather
from tokengate.guard import GuardedFunction, task_token_guard
from tokengate.stats import Stats
from tokengate.token import Token, TokenState

try:
    __version__ = version("py-tokengate")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Coordinator",
    "CoordinatorStopped",
    "FunctionExited",
    "GateFull",
    "GuardedFunction",
    "LaneUnavailable",
    "Stats",
    "Token",
    "TokenExpired",
    "TokenGateError",
    "TokenKilled",
    "TokenState",
    "__version__",
    "as_completed",
    "configure_default",
    "current_token",
    "gather",
    "get_coordinator",
    "task_token_guard",
    "use",
]
