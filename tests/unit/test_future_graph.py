"""Tasks that await tokens, seen from outside: asyncio's call graphs, and `python -m asyncio ps`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token

if TYPE_CHECKING:
    from tests.conftest import Gate

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="asyncio draws call graphs from Python 3.14 on"
)

aio: Any = asyncio  # what only 3.14 has


async def innermost(token: Token[Any]) -> Any:
    return await token


async def outer(token: Token[Any]) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(innermost(token), name="inner task")


async def test_the_graph_of_a_task_that_awaits_one(coordinator: Coordinator, gate: Gate) -> None:
    token: Token[Any] = coordinator.submit(gate)
    task = asyncio.create_task(innermost(token))
    await gate.entered()
    graph = aio.capture_call_graph(task)
    assert [entry.frame.f_code.co_name for entry in graph.call_stack] == ["innermost"]
    assert f"wait_for={token!r}" in repr(task)
    gate.open()
    await task


async def test_a_token_itself_is_in_no_graph(coordinator: Coordinator, gate: Gate) -> None:
    # asyncio asks for a subclass of its own Future there. docs/pitfalls.md says so.
    token: Token[Any] = coordinator.submit(gate)
    with pytest.raises(TypeError, match=r"compatible with asyncio\.Future"):
        aio.capture_call_graph(token)
    gate.open()
    await token


@pytest.mark.parametrize("command", ["ps", "pstree"])
async def test_the_table_of_tasks(coordinator: Coordinator, gate: Gate, command: str) -> None:
    token: Token[Any] = coordinator.submit(gate)
    task = asyncio.create_task(outer(token), name="outer task")
    await gate.entered()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "asyncio", command, str(os.getpid()),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    gate.open()
    await task
    if process.returncode != 0 and ("ermission" in said or "not permitted" in said):
        pytest.skip(f"may not look into processes here: {said.strip()[-200:]}")
    assert process.returncode == 0, said
    for what in ("outer task", "inner task", "innermost", "outer"):
        assert what in said
