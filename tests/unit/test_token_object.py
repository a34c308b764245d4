"""The token as an object: what it tells about itself, its times, and what cannot be done to it."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import copy
import gc
import pickle
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pytest

from tokengate import Coordinator, Token, TokenState, current_token, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, RunPython


async def test_what_it_tells(single: Coordinator, gate: Gate) -> None:
    @task_token_guard("an operation", {"weight": "heavy", "team": "a"})
    def work() -> Any:
        return gate(1)

    first, second = work(), work()
    gate.wait_entered()
    assert first.operation_type == "an operation"
    assert first.tags == {"weight": "heavy", "team": "a"}
    assert isinstance(first.tags, MappingProxyType)
    assert second.id == first.id + 1
    assert first.index is None
    assert first.args is None
    assert type(first.id) is int
    assert first.state is TokenState.EXECUTING
    assert not first.failed
    gate.open()
    await asyncio.gather(first, second)
    assert repr(first).endswith("COMPLETED>")
    assert not first.failed


async def test_repr_tells_its_story(single: Coordinator, gate: Gate) -> None:
    token, other = single.submit(gate), single.submit(int, "no number")
    gate.wait_entered()
    assert repr(token) == f"<Token {token.id} tests.gate EXECUTING>"
    gate.open()
    await token
    assert repr(token) == f"<Token {token.id} tests.gate COMPLETED>"
    await asyncio.wait([asyncio.ensure_future(other)])
    assert repr(other) == f"<Token {other.id} builtins.int FAILED>"
    assert isinstance(other.exception(), ValueError)
    assert other.failed


async def test_ids_are_unique_and_rise(coordinator: Coordinator) -> None:
    tokens = [coordinator.submit(int) for _ in range(1000)]
    ids = [token.id for token in tokens]
    assert ids == list(range(ids[0], ids[0] + 1000))
    await asyncio.gather(*tokens)


async def test_its_properties_are_read_only(coordinator: Coordinator) -> None:
    token: Any = coordinator.submit(int)
    await token
    for name in ("id", "state", "tags", "operation_type", "abandoned", "run_time", "core", "new"):
        with pytest.raises(AttributeError):
            setattr(token, name, 1)
    with pytest.raises(TypeError):
        token.tags["weight"] = "light"


async def test_what_typing_and_abc_ask(coordinator: Coordinator) -> None:
    token = coordinator.submit(int)
    assert isinstance(token, collections.abc.Awaitable)
    assert get_origin(Token[int]) is Token
    assert get_args(Token[int]) == (int,)
    assert await token == 0
    assert hash(token) == hash(token)
    same, other = token, coordinator.submit(int)
    assert token == same
    assert token != other
    await coordinator.drain()


async def test_weakly_referenced_and_freed_without_the_collector(
    coordinator: Coordinator,
) -> None:
    gc.collect()
    gc.disable()
    try:
        tokens = [coordinator.submit(int) for _ in range(100)]
        await asyncio.gather(*tokens)
        await coordinator.aclose()  # the workers have let go
        refs = [weakref.ref(token) for token in tokens]
        del tokens
        await asyncio.sleep(0)
        assert [ref() for ref in refs] == [None] * 100
    finally:
        gc.enable()


class Node:
    """Holds a token that leads back to it."""

    token: Any = None

    def heard(self, _: Any) -> None:
        pass

    def fail(self) -> None:
        error: Any = LookupError("gone")
        error.node = self
        raise error


async def through_its_result(coordinator: Coordinator, node: Node) -> None:
    node.token = coordinator.submit(lambda: node)
    assert await node.token is node


async def through_its_exception(coordinator: Coordinator, node: Node) -> None:
    node.token = coordinator.submit(node.fail)
    await asyncio.wait([node.token])
    assert isinstance(node.token.exception(), LookupError)


async def through_its_arguments(coordinator: Coordinator, node: Node) -> None:
    node.token = coordinator.submit(id, node)
    await node.token


async def through_its_function(coordinator: Coordinator, node: Node) -> None:
    node.token = coordinator.submit(node.heard, 1)
    await node.token


async def through_arguments_that_were_kept(coordinator: Coordinator, node: Node) -> None:
    identity = task_token_guard("identity of a node")(id).options(coordinator=coordinator)
    (node.token,) = await identity.map([node], tokens=True)
    assert node.token.args == (node,)


async def through_its_context(coordinator: Coordinator, node: Node) -> None:
    var: contextvars.ContextVar[Node] = contextvars.ContextVar("node")
    var.set(node)
    node.token = coordinator.submit(int)
    await node.token


async def through_a_callback(coordinator: Coordinator, node: Node) -> None:
    node.token = coordinator.submit(int)
    node.token.add_done_callback(node.heard)
    await node.token


async def through_a_callback_that_was_removed(coordinator: Coordinator, node: Node) -> None:
    node.token = coordinator.submit(int)
    node.token.add_done_callback(node.heard)
    node.token.remove_done_callback(node.heard)
    await node.token


async def through_a_cancel_message(coordinator: Coordinator, node: Node) -> None:
    node.token = coordinator.submit(int)
    node.token.cancel(node)
    await asyncio.wait([node.token])


async def through_a_callback_never_called(coordinator: Coordinator, node: Node) -> None:
    # Its loop is closed before it delivers.
    node.token = coordinator.submit(time.sleep, 0.01)
    node.token.add_done_callback(node.heard)


CYCLES = [
    through_its_result,
    through_its_exception,
    through_its_arguments,
    through_its_function,
    through_arguments_that_were_kept,
    through_its_context,
    through_a_callback,
    through_a_callback_that_was_removed,
    through_a_cancel_message,
    through_a_callback_never_called,
]


@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.__name__)
def test_a_token_in_a_cycle_is_collected(coordinator: Coordinator, cycle: Any) -> None:
    def run() -> weakref.ref[Node]:
        node = Node()
        asyncio.run(cycle(coordinator, node))
        coordinator.stop()
        return weakref.ref(node)

    ref = run()
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_it_can_not_be_copied_or_pickled(coordinator: Coordinator, act: Any) -> None:
    token = coordinator.submit(int)
    with pytest.raises(TypeError):
        act(token)
    assert await token == 0


MISUSES = [
    "Token()",
    "repr(Token())",
    "Token.__new__(Token)",
    "repr(Token.__new__(Token))",
    "Token.__new__(Token).tags",
    "Token.__new__(Token).operation_type",
    "Token.__new__(Token).cancel()",
    "Token.__new__(Token).kill()",
    "Token.__new__(Token).result(0)",
    "Token.__new__(Token).add_done_callback(print)",
    "asyncio.run(await_it(Token.__new__(Token)))",
    "object.__new__(Token)",
    "class_of('Mine', Token)()",
    "GuardedFunction.__new__(GuardedFunction)(1)",
    "repr(GuardedFunction.__new__(GuardedFunction))",
    "GuardedFunction.__new__(GuardedFunction).map([1])",
    "asyncio.run(await_it(GuardedFunction.__new__(GuardedFunction).map([1])))",
    "GuardedFunction.__new__(GuardedFunction).options(tags={})",
    "Coordinator.__new__(Coordinator)",
    "Coordinator.__new__(Coordinator).submit(int)",
    "Coordinator.__new__(Coordinator).stats()",
    "Coordinator.__new__(Coordinator).stop()",
    "TokenBase.id.__get__(object())",
]

TRY_ALL = """
import asyncio, sys
from tokengate import *
from tokengate._core import TokenBase
class_of = lambda name, base: type(name, (base,), {})
async def await_it(what):
    return await asyncio.wait_for(what, 0.05)
for line in sys.stdin.read().splitlines():
    print("?", line, flush=True)
    try:
        eval(line)
    except Exception as error:
        print("!", type(error).__name__, flush=True)
print("alive")
"""


def test_what_was_never_set_up_raises_and_does_not_crash(run_python: RunPython) -> None:
    # In a process of its own, since the failure to look for is a crash of the interpreter.
    told = run_python(TRY_ALL, "\n".join(MISUSES))
    assert told.rstrip().endswith("alive")
    assert "? Token()\n! TypeError" in told


# -- times -----------------------------------------------------------------------------------------


async def test_times_of_one_that_completed(single: Coordinator, gate: Gate) -> None:
    before = time.monotonic_ns()
    held, token = single.submit(gate), single.submit(int)
    gate.wait_entered()
    between = time.monotonic_ns()
    gate.open()
    await asyncio.gather(held, token)
    after = time.monotonic_ns()
    created, admitted, started, finished = token.timestamps
    assert before <= created <= between <= started <= finished <= after
    assert created <= admitted <= started
    assert token.wait_time == pytest.approx((started - created) / 1e9)
    assert token.run_time == pytest.approx((finished - started) / 1e9)
    assert token.wait_time >= (between - created) / 1e9
    assert token.wait_time + token.run_time <= (after - before) / 1e9
    assert held.run_time >= 0
    waited = token.wait_time
    assert token.wait_time == waited  # it no longer grows


async def test_times_grow_while_it_waits_and_runs(single: Coordinator, gate: Gate) -> None:
    held, waiting = single.submit(gate), single.submit(int)
    gate.wait_entered()

    def grows(name: str, token: Token[Any]) -> bool:
        first = getattr(token, name)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if getattr(token, name) > first >= 0:
                return True
        return False

    assert grows("run_time", held)
    assert grows("wait_time", waiting)
    assert waiting.run_time == 0
    wait = held.wait_time
    assert not held.wait_time > wait
    assert held.timestamps[3] == waiting.timestamps[2] == 0
    gate.open()
    await asyncio.gather(held, waiting)


async def test_times_of_one_cancelled_before_it_started(single: Coordinator, gate: Gate) -> None:
    held, token = single.submit(gate), single.submit(int)
    gate.wait_entered()
    token.cancel()
    first = (token.wait_time, token.run_time, token.timestamps)
    assert first[0] > 0
    assert first[1] == 0
    gate.open()
    await held
    assert (token.wait_time, token.run_time, token.timestamps) == first


async def test_times_of_one_cancelled_while_it_ran(single: Coordinator, gate: Gate) -> None:
    token = single.submit(gate)
    gate.wait_entered()
    token.cancel()
    first = (token.wait_time, token.run_time, token.timestamps)
    assert first[1] > 0
    gate.open()
    await single.aclose()
    assert (token.wait_time, token.run_time, token.timestamps) == first


async def test_times_of_one_that_failed(coordinator: Coordinator) -> None:
    token = coordinator.submit(int, "no number")
    await asyncio.wait([asyncio.ensure_future(token)])
    assert token.run_time > 0
    assert isinstance(token.exception(), ValueError)


async def test_times_of_one_that_was_refused(coordinator: Coordinator) -> None:
    await coordinator.aclose()
    token = coordinator.submit(int)
    assert token.state is TokenState.KILLED
    assert token.wait_time >= 0
    assert token.run_time == 0
    assert token.exception() is not None


async def test_the_run_time_of_a_sleep_is_the_sleep(coordinator: Coordinator) -> None:
    token = coordinator.submit(time.sleep, 0.05)
    await token
    assert 0.045 < token.run_time < 5


# -- the executing token ---------------------------------------------------------------------------


async def test_the_executing_token_is_the_current_one(coordinator: Coordinator) -> None:
    tokens = [coordinator.submit(current_token) for _ in range(100)]
    assert await asyncio.gather(*tokens) == tokens
    assert current_token() is None


async def test_in_a_thread_the_function_starts_there_is_none(coordinator: Coordinator) -> None:
    def outer() -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(current_token).result(20)

    assert await coordinator.submit(outer) is None


async def test_after_a_failure_there_is_none(single: Coordinator) -> None:
    token = single.submit(int, "no number")
    await asyncio.wait([asyncio.ensure_future(token)])
    assert token.exception() is not None
    again = single.submit(current_token)
    assert await again is again
