"""Every reference that goes in comes out again, at once: however a token ends and is asked."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import sysconfig
import threading
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, Token, _core

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd, WaitUntil

TIMEOUT = 20.0
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")


class Thing:
    """Something whose references are counted."""


class Work:
    """What a token runs; an object and no function, whose references some builds do not count."""

    __qualname__ = "work"

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def __call__(self, thing: object, *, how: str, other: object) -> object:
        if how == "held":
            self.entered.release()
            assert self.leave.acquire(timeout=TIMEOUT)
        if how == "fails":
            raise LookupError(thing)
        return thing


Asked = list[Token[Any]]  # holds one token; whoever asks takes it out, so that no frame keeps it
Ask = Callable[[Asked], Awaitable[None]]


async def ask_nothing(asked: Asked) -> None: ...


async def ask_await(asked: Asked) -> None:
    with contextlib.suppress(Exception, asyncio.CancelledError):
        await asked.pop()


async def ask_callback(asked: Asked) -> None:
    called = asyncio.Event()
    asked[0].add_done_callback(lambda _: called.set())
    asked[0].add_done_callback(print)
    asked[0].remove_done_callback(print)
    await called.wait()


async def ask_gather(asked: Asked) -> None:
    await asyncio.gather(asked.pop(), return_exceptions=True)


async def ask_our_gather(asked: Asked) -> None:
    await tokengate.gather(asked.pop(), return_exceptions=True)


async def ask_as_completed(asked: Asked) -> None:
    async for _ in tokengate.as_completed(asked):
        pass


async def ask_wait(asked: Asked) -> None:
    await asyncio.wait(asked, timeout=1e-6)
    await asyncio.wait(asked)


async def ask_thread(asked: Asked) -> None:
    def block() -> None:
        with contextlib.suppress(Exception):
            asked[0].exception(1e-6)
        with contextlib.suppress(Exception):
            asked.pop().result()

    asker = threading.Thread(target=block)
    asker.start()
    while asker.is_alive():
        await asyncio.sleep(0)
    asker.join()


ASKS: tuple[Ask, ...] = (
    ask_nothing,
    ask_await,
    ask_callback,
    ask_gather,
    ask_our_gather,
    ask_as_completed,
    ask_wait,
    ask_thread,
)
SILENT = (ask_nothing, ask_callback, ask_as_completed, ask_wait)  # do not look at the error
ENDS = (
    "returns",
    "fails",
    "cancelled waiting",
    "cancelled executing",
    "killed waiting",
    "killed executing",
    "refused",
)


async def one(
    coordinator: Coordinator,
    work: Work,
    thing: object,
    end: str,
    ask: Ask,
    gone: list[weakref.ref[Any]],
) -> None:
    """Make a token, let it end that way, with someone asking that way; note it in `gone`."""
    variable.set(thing)
    what, _, when = end.partition(" ")
    ahead = None
    if when == "waiting":
        ahead = coordinator.submit(work, None, how="held", other=None)
        assert work.entered.acquire(timeout=TIMEOUT)
    if end == "refused":
        await coordinator.aclose()
    how = end if end == "fails" else "held" if when == "executing" else "returns"
    token = coordinator.submit(work, thing, how=how, other=thing)
    if when == "executing":
        assert work.entered.acquire(timeout=TIMEOUT)
    gone.append(weakref.ref(token))
    asking = asyncio.ensure_future(ask([token]))
    await asyncio.sleep(0)
    if what == "cancelled":
        token.cancel()
    elif what == "killed":
        token.kill()
    if when:
        work.leave.release()
    await asking
    if ahead is not None:
        await ahead
    if end == "fails" and not token.done():
        await asyncio.wait([token])
    if end == "fails" and ask in SILENT:
        token.exception()
    coordinator.start()
    await coordinator.drain()


@pytest.fixture
def alone(new_coordinator: NewCoordinator) -> Coordinator:
    """One worker, so that what is behind another waits."""
    return new_coordinator(thread_workers=1)


@pytest.mark.parametrize("end", ENDS)
def test_no_reference_is_kept(alone: Coordinator, wait_until: WaitUntil, end: str) -> None:
    work, thing = Work(), Thing()

    async def main(times: int) -> None:
        for ask in ASKS:
            for _ in range(times):
                await asyncio.ensure_future(one(alone, work, thing, end, ask, []))

    def counts() -> tuple[int, int]:
        gc.collect()
        return sys.getrefcount(work), sys.getrefcount(thing)

    asyncio.run(main(1))
    wait_until(lambda: alone.stats().totals.abandoned_now == 0, "functions to return")
    before = counts()
    asyncio.run(main(20))
    wait_until(lambda: counts() == before, f"{before} references again")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__.removeprefix("ask_"))
def test_a_token_goes_at_once(
    alone: Coordinator, wait_until: WaitUntil, end: str, ask: Ask
) -> None:
    """Without the garbage collector: nothing of ours is left in a cycle."""
    work = Work()
    gone: list[weakref.ref[Any]] = []

    async def main() -> None:
        for _ in range(3):
            thing = Thing()
            gone.append(weakref.ref(thing))
            await asyncio.ensure_future(one(alone, work, thing, end, ask, gone))

    def all_gone() -> bool:
        if FREE_THREADED:
            # what a thread has made is let go by that thread, the next time it runs
            alone.submit(_nothing).result(TIMEOUT)
        return not any(ref() for ref in gone)

    with _no_collection():
        asyncio.run(main())
        assert len(gone) == 6
        wait_until(all_gone, f"{end}, {ask.__name__}: all to go")


def _nothing() -> None: ...


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_a_loop_closed_under_ended_tokens_goes(
    alone: Coordinator, wait_until: WaitUntil, factory: str
) -> None:
    """Tokens that end after the loop's last turn lead back to it, as every waiting task does."""
    new_loop = asyncio.new_event_loop
    if factory == "uvloop":
        new_loop = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop
    work = Work()

    def run_and_close() -> list[weakref.ref[Any]]:
        loop = new_loop()

        async def main() -> Token[Any]:
            token = alone.submit(work, Thing(), how="held", other=None)
            token.add_done_callback(lambda _, loop=loop: None)
            return token

        token = loop.run_until_complete(main())
        work.leave.release()
        thing = token.result(TIMEOUT)
        loop.close()
        return [weakref.ref(loop), weakref.ref(token), weakref.ref(thing)]

    gone = run_and_close()

    def all_gone() -> bool:
        gc.collect()
        return not any(ref() for ref in gone)

    wait_until(all_gone, "loop, token and result to go")


def test_many_threads_and_loops_leave_no_objects(
    books: Books, crowd: Crowd, wait_until: WaitUntil
) -> None:
    """Objects of each kind are as many after the storm as they were before."""
    kinds = (
        Token,
        _core.Link,
        _core.Collector,
        contextvars.Context,
        Coordinator,
        type(_core.links),
    )
    names = {kind.__name__ for kind in kinds if kind is not type(_core.links)} | {"Failure"}

    def census() -> Counter[str]:
        gc.collect()
        found = Counter(type(each).__name__ for each in gc.get_objects())
        return Counter({name: found[name] for name in names})

    def fail() -> None:
        raise LookupError

    async def main(number: int) -> None:
        for _ in range(3):
            tokens = [books.call(object if i % 3 else fail) for i in range(200)]
            for token in tokens[::7]:
                token.cancel()
            await asyncio.gather(*tokens[:100], return_exceptions=True)
            await tokengate.gather(*tokens[100:], return_exceptions=True)
            async with books.guard.map(books.calls(iter([object] * 300)), in_flight=20) as results:
                async for _ in results:
                    if number % 2:
                        break

    def storm() -> None:
        crowd(4, lambda number: asyncio.run(main(number)))
        books.check()

    storm()
    before = census()
    for _ in range(4):
        storm()
    wait_until(lambda: census() == before, f"{dict(before)} again")
