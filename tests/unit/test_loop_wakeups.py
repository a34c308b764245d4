"""How often a loop is woken for what ends: once for all that it has not come to yet."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tokengate import Token, task_token_guard
from tokengate._core import gil_enabled

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


def spin() -> float:
    """Python that takes about a third of a millisecond."""
    until = time.perf_counter() + 0.000_3
    while time.perf_counter() < until:
        pass
    return until


@pytest.mark.skipif(gil_enabled(), reason="with a GIL the loop waits for it anyway")
def test_not_for_each_of_many_without_a_gil(new_coordinator: NewCoordinator, name: str) -> None:
    """And the last ones come as promptly as the first."""
    guarded = task_token_guard(name)(spin).options(coordinator=new_coordinator(thread_workers=2))
    count = 3_000

    async def main() -> list[float]:
        return await asyncio.gather(*[guarded() for _ in range(count)])

    loop = CountingLoop()
    try:
        assert len(loop.run_until_complete(asyncio.wait_for(main(), 60))) == count
        assert loop.turns < count / 2
    finally:
        loop.close()


def test_a_loop_that_ends_meanwhile(new_coordinator: NewCoordinator, name: str) -> None:
    """What it was about to come for is delivered when it runs again, or dropped with it."""
    guarded = task_token_guard(name)(spin).options(coordinator=new_coordinator(thread_workers=2))
    called: list[object] = []
    loop = asyncio.SelectorEventLoop()

    async def begin() -> list[Token[float]]:
        tokens = [guarded() for _ in range(1_000)]
        for token in tokens:
            token.add_done_callback(called.append)
        await tokens[100]
        return tokens

    async def end(tokens: list[Token[float]]) -> None:
        while len(called) < len(tokens):
            await asyncio.sleep(0.001)

    tokens = loop.run_until_complete(begin())
    time.sleep(0.01)  # past the moment at which it would have come
    loop.run_until_complete(asyncio.wait_for(end(tokens), 60))
    assert sorted(map(id, called)) == sorted(map(id, tokens))
    left = loop.run_until_complete(begin())
    loop.close()
    for token in left:
        token.result(20)
