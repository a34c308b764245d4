"""The exceptions: one tree, and what each is caught as."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from typing import TYPE_CHECKING

import pytest

import tokengate
from tokengate import (
    Coordinator,
    CoordinatorStopped,
    FunctionExited,
    GateFull,
    LaneUnavailable,
    OperationQuarantined,
    TokenExpired,
    TokenGateError,
    TokenKilled,
    WorkerDied,
    errors,
    task_token_guard,
)

if TYPE_CHECKING:
    from tests.conftest import Gate

TREE = {
    TokenGateError: Exception,
    TokenExpired: TokenGateError,
    TokenKilled: TokenGateError,
    GateFull: TokenKilled,
    CoordinatorStopped: TokenKilled,
    FunctionExited: TokenGateError,
    LaneUnavailable: TokenGateError,
    WorkerDied: TokenGateError,
    OperationQuarantined: TokenKilled,
}


def test_the_tree() -> None:
    for error, base in TREE.items():
        assert base in error.__bases__
        assert error.__doc__


def test_every_error_is_public_once() -> None:
    own = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }
    assert own == set(errors.__all__)
    assert own == {name for name in tokengate.__all__ if name in own}
    for name in own:
        assert getattr(tokengate, name) is getattr(errors, name)
        assert getattr(errors, name).__module__.startswith("tokengate")


def test_expiry_is_a_timeout() -> None:
    assert issubclass(TokenExpired, TimeoutError)
    assert issubclass(TokenExpired, asyncio.TimeoutError)


def test_none_is_mistaken_for_a_cancellation() -> None:
    for error in TREE:
        assert not issubclass(error, asyncio.CancelledError)


@pytest.mark.parametrize("kind", [TokenKilled, GateFull, CoordinatorStopped])
def test_a_kill_says_why(kind: type[TokenKilled]) -> None:
    assert kind("by order").reason == "by order"
    assert str(kind("by order")) == "by order"
    assert kind().reason


@pytest.mark.parametrize("kind", TREE)
def test_they_survive_a_copy_and_a_pickle(kind: type[Exception]) -> None:
    for again in (copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))):
        error = again(kind("why"))
        assert type(error) is kind
        assert error.args == ("why",)
        if isinstance(error, TokenKilled):
            assert error.reason == "why"


async def test_one_except_catches_all_of_them(coordinator: Coordinator, gate: Gate) -> None:
    def leave() -> None:
        raise SystemExit

    killed, exited = coordinator.submit(gate), coordinator.submit(leave)
    await gate.entered()
    killed.kill("by order")
    await asyncio.wait([asyncio.ensure_future(exited)])
    gate.open()
    await coordinator.aclose()
    for token, kind in (
        (killed, TokenKilled),
        (exited, FunctionExited),
        (coordinator.submit(int), CoordinatorStopped),
    ):
        with pytest.raises(TokenGateError) as caught:
            await token
        assert type(caught.value) is kind
    with pytest.raises(TokenGateError):
        task_token_guard(lane="cluster")


def test_the_text_of_a_refusal_says_what_to_do(coordinator: Coordinator) -> None:
    coordinator.stop()
    token = coordinator.submit(int)
    with pytest.raises(CoordinatorStopped, match=r"stopped.*start\(\)"):
        token.result()
    error = token.exception()
    assert isinstance(error, CoordinatorStopped)
    assert coordinator.name in error.reason
