"""A failure nobody asks for is reported, once, where a user sees it; one asked for is not."""

from __future__ import annotations

import asyncio
import gc
import logging
import sysconfig
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tokengate import Coordinator, Token, as_completed, gather

if TYPE_CHECKING:
    from tests.conftest import Gate

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def fail(text: object = "gone") -> NoReturn:
    raise LookupError(text)


class Reports:
    """What the running loop's exception handler was given."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen: list[dict[str, Any]] = []
        self._came = threading.Semaphore(0)
        self.loop.set_exception_handler(self._note)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        assert loop is asyncio.get_running_loop() is self.loop
        self.seen.append(context)
        self._came.release()

    async def next(self) -> dict[str, Any]:
        if FREE_THREADED:
            # What a parked worker has made and others have dropped waits for the collector there.
            await asyncio.to_thread(self._collect)
        assert await asyncio.to_thread(self._came.acquire, True, 20)
        return self.seen.pop(0)

    def _collect(self) -> None:
        for _ in range(1000):
            gc.collect()
            if self._came.acquire(timeout=0.02):
                self._came.release()
                return

    async def none(self, coordinator: Coordinator) -> None:
        """Nothing has come, and nothing that was dropped so far will: workers and loop are idle."""
        await coordinator.aclose()
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        assert self.seen == []


@pytest.fixture
async def reports() -> Reports:
    return Reports()


async def test_never_retrieved_is_reported_to_the_loop(
    coordinator: Coordinator, reports: Reports
) -> None:
    token = coordinator.submit(fail, "nobody asks")
    number = token.id
    await coordinator.drain()
    assert reports.seen == []
    del token
    gc.collect()
    report = await reports.next()
    assert "never retrieved" in report["message"]
    assert str(number) in report["message"]
    assert "fail" in report["message"]
    error = report["exception"]
    assert isinstance(error, LookupError)
    assert error.args == ("nobody asks",)
    assert error.__traceback__ is not None
    await reports.none(coordinator)


async def test_dropped_before_it_ran(coordinator: Coordinator, reports: Reports) -> None:
    coordinator.submit(fail, "fire and forget")
    report = await reports.next()
    assert report["exception"].args == ("fire and forget",)
    await reports.none(coordinator)


async def test_each_of_many_is_reported_once(coordinator: Coordinator, reports: Reports) -> None:
    for i in range(50):
        coordinator.submit(fail, i)
    seen = [(await reports.next())["exception"].args[0] for _ in range(50)]
    assert sorted(seen) == list(range(50))
    await reports.none(coordinator)


def test_made_and_dropped_off_any_loop_it_is_logged(
    coordinator: Coordinator, logged: list[logging.LogRecord]
) -> None:
    token = coordinator.submit(fail, "nobody asks")
    coordinator.stop()
    del token
    gc.collect()
    (record,) = logged
    assert record.name == "tokengate"
    assert record.levelno == logging.ERROR
    assert "never retrieved" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
    logged.clear()


def test_the_loop_is_closed_by_then_so_it_is_logged(
    coordinator: Coordinator, logged: list[logging.LogRecord]
) -> None:
    async def main() -> Token[NoReturn]:
        token = coordinator.submit(fail, "nobody asks")
        await coordinator.drain()
        return token

    token = asyncio.run(main())
    coordinator.stop()  # the workers have let go of it
    assert logged == []
    del token
    gc.collect()
    (record,) = logged
    assert "never retrieved" in record.getMessage()
    logged.clear()


def test_the_loop_has_gone_by_then_so_it_is_logged(
    coordinator: Coordinator, logged: list[logging.LogRecord]
) -> None:
    loop = asyncio.new_event_loop()

    async def main() -> Token[NoReturn]:
        token = coordinator.submit(fail, "nobody asks")
        await coordinator.drain()
        return token

    token = loop.run_until_complete(main())
    loop.close()
    del loop
    coordinator.stop()  # the workers have let go of it
    gc.collect()
    del token
    gc.collect()
    (record,) = logged
    assert "never retrieved" in record.getMessage()
    logged.clear()


async def test_logged_by_asyncio_where_nobody_set_a_handler(
    coordinator: Coordinator, logged: list[logging.LogRecord]
) -> None:
    token = coordinator.submit(fail, "nobody asks")
    await coordinator.aclose()  # the workers have let go of it
    del token
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (record,) = logged
    assert record.name == "asyncio"
    logged.clear()


WAYS: list[tuple[str, Callable[[Token[Any]], Any]]] = [
    ("exception", lambda token: token.exception()),
    ("await", lambda token: asyncio.gather(token, return_exceptions=True)),
    ("our gather", lambda token: gather(token, return_exceptions=True)),
]


@pytest.mark.parametrize("ask", [ask for _, ask in WAYS], ids=[name for name, _ in WAYS])
async def test_asked_for_is_not_reported(
    coordinator: Coordinator, reports: Reports, ask: Callable[[Token[Any]], Any]
) -> None:
    token: Token[Any] = coordinator.submit(fail)
    await coordinator.drain()
    answer = ask(token)
    if not isinstance(answer, Exception):
        await answer
    del token, answer
    await reports.none(coordinator)


async def test_looking_at_its_state_is_not_asking(
    coordinator: Coordinator, reports: Reports
) -> None:
    token: Token[Any] = coordinator.submit(fail)
    await asyncio.wait([asyncio.ensure_future(token)])
    assert token.done()
    assert token.failed
    assert repr(token)
    assert token.run_time >= 0
    del token
    assert "never retrieved" in (await reports.next())["message"]
    await reports.none(coordinator)


async def test_our_gather_asks_for_all_failures_like_asyncios(
    coordinator: Coordinator, gate: Gate, reports: Reports
) -> None:
    def fail_later(text: str) -> NoReturn:
        gate()
        fail(text)

    tokens = [coordinator.submit(fail, 1), coordinator.submit(fail, 2)]
    later = [coordinator.submit(fail_later, "3"), coordinator.submit(fail_later, "4")]
    with pytest.raises(LookupError):
        await gather(*tokens, *later)
    gate.open()
    del tokens, later
    await coordinator.drain()
    await reports.none(coordinator)


async def test_our_gather_asks_for_all_failures_that_came_before_it(
    coordinator: Coordinator, reports: Reports
) -> None:
    tokens = [coordinator.submit(fail, i) for i in range(20)]
    await coordinator.drain()
    with pytest.raises(LookupError):
        await gather(*tokens)
    del tokens
    await reports.none(coordinator)


@pytest.mark.parametrize("ended", [True, False])
def test_our_gather_off_the_loop_asks_for_all_failures(
    coordinator: Coordinator, ended: bool
) -> None:
    tokens = [coordinator.submit(fail, i) for i in range(20)]
    if ended:
        asyncio.run(coordinator.drain())
    with pytest.raises(LookupError):
        gather(*tokens).result(20)
    coordinator.stop()
    del tokens
    gc.collect()  # what is reported is logged, and seen by the fixture


async def test_as_completed_leaves_asking_to_the_user(
    coordinator: Coordinator, reports: Reports
) -> None:
    tokens = [coordinator.submit(fail, i) for i in range(3)]
    errors = []
    async for token in as_completed(tokens):
        errors.append(token.exception())
    assert all(isinstance(error, LookupError) for error in errors)
    del tokens, token
    await reports.none(coordinator)


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.skipif(FREE_THREADED, reason="there it is the collector that frees it")
async def test_a_failed_token_is_no_cycle(
    coordinator: Coordinator, reports: Reports, no_collection: None
) -> None:
    # Reported when the last reference goes, not at some garbage collection later.
    token = coordinator.submit(fail, "nobody asks")
    await coordinator.drain()
    del token
    assert (await reports.next())["exception"].args == ("nobody asks",)
    assert not gc.isenabled()
