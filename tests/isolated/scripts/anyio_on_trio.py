"""anyio's trio backend, with the asyncio backend on tokens: nothing changes there, and both at once work."""

import threading
from collections.abc import Awaitable

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

import tokengate
from tokengate.anyio_backend import patch_anyio


def look() -> tuple[bool, str]:
    return tokengate.current_token() is None, threading.current_thread().name


@tokengate.task_token_guard
def guarded(value: int) -> int:
    return value


async def answer() -> int:
    await anyio.lowlevel.checkpoint()
    return 5


def back() -> int:
    anyio.from_thread.check_cancelled()
    return anyio.from_thread.run(answer) + anyio.from_thread.run_sync(int, "1")


async def refused(what: Awaitable[object]) -> str:
    try:
        await what
    except RuntimeError as error:
        return str(error)
    raise AssertionError("it was awaited")


async def main() -> None:
    plain, _ = await anyio.to_thread.run_sync(look)
    assert plain
    assert await anyio.to_thread.run_sync(back) == 6
    release = threading.Event()
    with anyio.move_on_after(0.01) as scope:
        await anyio.to_thread.run_sync(release.wait, 20, abandon_on_cancel=True)
    release.set()
    assert scope.cancelled_caught
    # a token cannot be awaited here, and what can be done is in the message
    token = guarded(7)
    message = await refused(tokengate.gather(token, guarded(8)))
    assert "trio" in message, message
    assert "to_thread" in message, message
    assert await anyio.to_thread.run_sync(token.result) == 7


async def both() -> None:
    """On trio, with an asyncio loop in a thread beside it."""
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        assert portal.call(anyio.to_thread.run_sync, look)[0] is False
        assert (await anyio.to_thread.run_sync(look))[0] is True


undo = patch_anyio(tokengate.get_coordinator())
anyio.run(main, backend="trio")
anyio.run(both, backend="trio")
assert anyio.run(anyio.to_thread.run_sync, look, backend="asyncio")[0] is False
undo()
assert anyio.run(anyio.to_thread.run_sync, look, backend="asyncio")[0] is True
print("as before")
