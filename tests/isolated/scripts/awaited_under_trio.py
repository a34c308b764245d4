"""Tokens under trio: a clear error before anything is blocked; through a thread they can be had."""

import threading
from collections.abc import Awaitable

import trio

import tokengate

release = threading.Event()


@tokengate.task_token_guard
def held(value: int) -> int:
    assert release.wait(20)
    return value


async def refused(what: Awaitable[object]) -> str:
    try:
        await what
    except RuntimeError as error:
        return str(error)
    raise AssertionError("it was awaited")


async def refused_iterated() -> str:
    try:
        async for _ in held.map([1]):
            pass
    except RuntimeError as error:
        return str(error)
    raise AssertionError("it was iterated")


async def main() -> None:
    token = held(5)
    for message in (
        await refused(token),
        await refused(tokengate.gather(token)),
        await refused(held.map([1, 2])),
        await refused_iterated(),
    ):
        assert "trio" in message, message
        assert "event loop" in message, message
    release.set()
    assert await trio.to_thread.run_sync(token.result) == 5
    assert await token == 5  # one that has ended waits for no loop
    totals = tokengate.get_coordinator().stats().totals
    assert totals.submitted == 1, totals


trio.run(main)
print("refused")
