"""Done callbacks: on the loop, in order, in their context, whatever any of them raises."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token

if TYPE_CHECKING:
    import logging

    from tests.conftest import Gate, Pending, RunPython

    NewPending = Callable[[], Pending]

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def settled(future: Any) -> None:
    """Until it is done and the callbacks added so far have been called."""
    done = asyncio.Event()
    future.add_done_callback(lambda _: done.set())
    await asyncio.wait_for(done.wait(), 20)


async def test_called_with_the_future_on_the_loops_thread(pending: NewPending) -> None:
    one = pending()
    calls: list[tuple[Any, int, Any]] = []

    def called(future: Any) -> None:
        calls.append((future, threading.get_ident(), asyncio.get_running_loop()))

    one.future.add_done_callback(called)
    one.finish(1)
    await settled(one.future)
    assert calls == [(one.future, threading.get_ident(), asyncio.get_running_loop())]


async def test_done_by_the_time_they_are_called(pending: NewPending) -> None:
    one = pending()
    seen: list[Any] = []
    one.future.add_done_callback(lambda future: seen.append((future.done(), future.result())))
    one.finish(1)
    await settled(one.future)
    assert seen == [(True, 1)]


@pytest.mark.parametrize("how", ["finish", "fail", "cancel"])
async def test_called_however_it_ends(pending: NewPending, how: str) -> None:
    one = pending()
    calls: list[Any] = []
    one.future.add_done_callback(calls.append)
    if how == "finish":
        one.finish(1)
    elif how == "fail":
        one.fail(LookupError("gone"))
    else:
        one.future.cancel()
    await settled(one.future)
    assert calls == [one.future]
    if how == "fail":
        assert isinstance(one.future.exception(), LookupError)


async def test_in_the_order_they_were_added(pending: NewPending) -> None:
    one = pending()
    order: list[int] = []
    for i in range(10):
        one.future.add_done_callback(lambda _, i=i: order.append(i))
    one.finish(1)
    await settled(one.future)
    assert order == list(range(10))


async def test_the_same_one_twice_is_called_twice(pending: NewPending) -> None:
    one = pending()
    calls: list[Any] = []
    add = calls.append
    one.future.add_done_callback(add)
    one.future.add_done_callback(add)
    one.finish(1)
    await settled(one.future)
    assert len(calls) == 2


async def test_added_after_the_end_called_at_the_next_turn_not_at_once(
    pending: NewPending,
) -> None:
    one = pending()
    one.finish(1)
    await one.future
    calls: list[int] = []
    one.future.add_done_callback(lambda _: calls.append(1))
    one.future.add_done_callback(lambda _: calls.append(2))
    assert calls == []
    await settled(one.future)
    assert calls == [1, 2]


async def test_added_by_a_callback(pending: NewPending) -> None:
    one = pending()
    order: list[str] = []

    def first(future: Any) -> None:
        order.append("first")
        future.add_done_callback(lambda _: order.append("added"))

    one.future.add_done_callback(first)
    one.future.add_done_callback(lambda _: order.append("second"))
    one.finish(1)
    await settled(one.future)
    await settled(one.future)
    assert order == ["first", "second", "added"]


async def test_in_a_copy_of_the_context_they_were_added_in(pending: NewPending) -> None:
    one = pending()
    seen: list[str] = []
    var.set("mine")
    one.future.add_done_callback(lambda _: seen.append(var.get()))
    var.set("changed")

    def change(_: Any) -> None:
        seen.append(var.get())
        var.set("by a callback")

    one.future.add_done_callback(change)
    one.finish(1)
    await settled(one.future)
    assert seen == ["mine", "changed"]
    assert var.get() == "changed"


async def test_in_the_context_they_were_given(pending: NewPending) -> None:
    one = pending()
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(var.set, "given")
    one.future.add_done_callback(lambda _: seen.append(var.get()), context=context)
    one.future.add_done_callback(lambda _: var.set("by a callback"), context=context)
    one.finish(1)
    await settled(one.future)
    one.future.add_done_callback(lambda _: seen.append(var.get()), context=context)
    await settled(one.future)
    assert seen == ["given", "by a callback"]
    with pytest.raises(TypeError):
        one.future.add_done_callback(print, context)


CONTEXT_MUST_BE_ONE = """
import asyncio
from tokengate import Coordinator

async def main():
    async with Coordinator(thread_workers=1) as coordinator:
        for wrong in (5, None.__class__, {}, "context", object()):
            for token in (coordinator.submit(int), done):
                try:
                    token.add_done_callback(print, context=wrong)
                except TypeError:
                    refused.append(wrong)
                await token

async def make():
    async with Coordinator(thread_workers=1) as coordinator:
        token = coordinator.submit(int)
        await token
        return token

async def all_of_it():
    global done
    done = await make()
    await main()

refused = []
asyncio.run(all_of_it())
assert len(refused) == 10, refused
"""


def test_a_context_must_be_one(run_python: RunPython) -> None:
    # In a process of its own, since the failure to look for is a crash of the interpreter.
    run_python(CONTEXT_MUST_BE_ONE)


async def test_removed_ones_are_not_called(pending: NewPending) -> None:
    one = pending()
    calls: list[str] = []

    def keep(_: Any) -> None:
        calls.append("keep")

    def drop(_: Any) -> None:
        calls.append("drop")

    for callback in (drop, keep, drop, keep, drop):
        one.future.add_done_callback(callback)
    assert one.future.remove_done_callback(drop) == 3
    assert one.future.remove_done_callback(drop) == 0
    one.finish(1)
    await settled(one.future)
    assert calls == ["keep", "keep"]
    assert one.future.remove_done_callback(keep) == 0


async def test_all_removed_and_one_added_again(pending: NewPending) -> None:
    one = pending()
    calls: list[Any] = []
    add = calls.append
    one.future.add_done_callback(add)
    assert one.future.remove_done_callback(add) == 1
    one.future.add_done_callback(add)
    one.finish(1)
    await settled(one.future)
    assert calls == [one.future]


async def test_removal_goes_by_equality(pending: NewPending) -> None:
    one = pending()

    class Listener:
        calls = 0

        def heard(self, _: Any) -> None:
            self.calls += 1

    listener = Listener()
    one.future.add_done_callback(listener.heard)
    assert one.future.remove_done_callback(listener.heard) == 1
    one.finish(1)
    await settled(one.future)
    assert listener.calls == 0


async def test_one_that_raises_is_reported_and_the_others_are_called(
    pending: NewPending,
) -> None:
    loop = asyncio.get_running_loop()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    one = pending()
    calls: list[int] = []
    error = LookupError("from a callback")

    def fail(_: Any) -> None:
        raise error

    one.future.add_done_callback(lambda _: calls.append(1))
    one.future.add_done_callback(fail)
    one.future.add_done_callback(lambda _: calls.append(2))
    one.finish(1)
    await settled(one.future)
    assert calls == [1, 2]
    assert [report["exception"] for report in reports] == [error]
    assert "fail" in reports[0]["message"]
    assert await one.future == 1


@pytest.mark.parametrize("fatal", [SystemExit, KeyboardInterrupt])
def test_one_that_exits_ends_the_loop_and_the_others_are_called_when_it_runs_again(
    pending: NewPending, fatal: type[BaseException]
) -> None:
    calls: list[int] = []

    def exit_now(_: Any) -> None:
        raise fatal("from a callback")

    loop = asyncio.new_event_loop()
    try:

        async def begin() -> Pending:
            one = pending()
            for callback in (
                lambda _: calls.append(1),
                exit_now,
                lambda _: calls.append(2),
                lambda _: calls.append(3),
            ):
                one.future.add_done_callback(callback)
            return one

        async def wait() -> None:
            await asyncio.wait([one.future])
            await settled(one.future)

        one = loop.run_until_complete(begin())
        one.finish(1)
        task = loop.create_task(wait())
        with pytest.raises(fatal, match="from a callback"):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
        assert calls == [1, 2, 3]
    finally:
        loop.close()


def test_one_that_exits_loses_no_other_token(coordinator: Coordinator, gate: Gate) -> None:
    calls: list[int] = []

    def exit_now(_: Any) -> None:
        raise SystemExit("from a callback")

    async def begin() -> list[Token[Any]]:
        tokens = [coordinator.submit(gate, i) for i in range(4)]
        tokens[0].add_done_callback(exit_now)
        for token in tokens[1:]:
            token.add_done_callback(lambda token: calls.append(token.result()))
        return tokens

    async def finish() -> list[Any]:
        return await asyncio.wait_for(asyncio.gather(*tokens), 20)

    loop = asyncio.new_event_loop()
    try:
        tokens = loop.run_until_complete(begin())
        gate.open()
        asyncio.run(coordinator.drain())  # all have ended before their loop looks: one drain
        task = loop.create_task(finish())
        with pytest.raises(SystemExit, match="from a callback"):
            loop.run_until_complete(task)
        assert loop.run_until_complete(task) == [0, 1, 2, 3]
        assert sorted(calls) == [1, 2, 3]
    finally:
        loop.close()


async def test_added_from_another_thread_called_on_the_loop(
    coordinator: Coordinator, gate: Gate
) -> None:
    token = coordinator.submit(gate)
    called = asyncio.Event()
    threads: list[int] = []

    def heard(_: Token[Any]) -> None:
        threads.append(threading.get_ident())
        called.set()

    await asyncio.to_thread(token.add_done_callback, heard)
    gate.open()
    await asyncio.wait_for(called.wait(), 20)
    called.clear()
    await asyncio.to_thread(token.add_done_callback, heard)  # it has ended by now
    await asyncio.wait_for(called.wait(), 20)
    assert threads == [threading.get_ident()] * 2


async def test_added_by_many_threads_while_it_ends_each_is_called_once(
    coordinator: Coordinator,
) -> None:
    loop_thread = threading.get_ident()
    calls: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(100):
            ready = threading.Barrier(5)
            token = coordinator.submit(ready.wait, 20)

            def add(token: Token[int] = token, ready: threading.Barrier = ready) -> None:
                ready.wait(20)
                for _ in range(5):
                    token.add_done_callback(lambda _: calls.append(threading.get_ident()))

            adding = [pool.submit(add) for _ in range(4)]
            await asyncio.gather(*map(asyncio.wrap_future, adding))
            await settled(token)
    assert calls == [loop_thread] * 100 * 4 * 5


def test_without_any_loop_there_is_nowhere_to_call_them(
    coordinator: Coordinator,
) -> None:
    token = coordinator.submit(int)
    with pytest.raises(RuntimeError, match="no event loop"):
        token.add_done_callback(print)
    assert token.result(20) == 0
    with pytest.raises(RuntimeError, match="no event loop"):
        token.add_done_callback(print)


def test_a_token_made_off_any_loop_belongs_to_the_first_that_asks(
    coordinator: Coordinator,
) -> None:
    token = coordinator.submit(int)
    with pytest.raises(RuntimeError):
        token.get_loop()

    async def ask() -> int:
        value = await token
        assert token.get_loop() is asyncio.get_running_loop()
        return value

    assert asyncio.run(ask()) == 0


async def test_a_callback_of_a_token_nobody_else_keeps(coordinator: Coordinator) -> None:
    values: asyncio.Queue[int] = asyncio.Queue()
    for i in range(100):
        coordinator.submit(abs, i).add_done_callback(lambda t: values.put_nowait(t.result()))
    assert {await values.get() for _ in range(100)} == set(range(100))


async def test_nothing_of_a_callback_is_kept_once_it_was_called(
    coordinator: Coordinator, gate: Gate
) -> None:
    import weakref

    class Owner:
        def heard(self, _: Token[Any]) -> None:
            pass

    owner = Owner()
    gone = weakref.ref(owner)
    token = coordinator.submit(gate)
    token.add_done_callback(owner.heard)
    gate.open()
    await token
    await settled(token)
    del owner
    assert gone() is None


async def test_a_loop_that_is_busy_gets_all_of_them_later(
    coordinator: Coordinator, logged: list[logging.LogRecord]
) -> None:
    # The loop does not turn while 2,000 tokens end; then all callbacks come, each once.
    calls = [0] * 2000
    tokens = [coordinator.submit(int, i) for i in range(2000)]
    for token in tokens:
        token.add_done_callback(lambda token: calls.__setitem__(token.result(), 1))
    stop = threading.Thread(target=lambda: asyncio.run(coordinator.drain()))
    stop.start()
    stop.join(20)
    assert all(token.done() for token in tokens)
    assert calls == [0] * 2000
    await settled(tokens[-1])
    await asyncio.gather(*tokens)
    assert calls == [1] * 2000
