"""anyio's trio backend, with the asyncio backend on tokens: nothing changes there, and both at once work."""

import threading

import anyio
import anyio.from_thread
import anyio.to_thread

import tokengate
from tokengate.anyio_backend import patch_anyio


def look() -> tuple[bool, str]:
    return tokengate.current_token() is None, threading.current_thread().name


@tokengate.task_token_guard
def guarded(value: int) -> int:
    return value


async def answer() -> int:
    await anyio.sleep(0)
    return 5


def back() -> int:
    anyio.from_thread.check_cancelled()
    return anyio.from_thread.run(answer) + anyio.from_thread.run_sync(int, "1")


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
    try:
        await tokengate.gather(token, guarded(8))
    except RuntimeError as error:
        assert "trio" in str(error), error
        assert "to_thread" in str(error), error
    else:
        raise AssertionError("it was awaited")
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
