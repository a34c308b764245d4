"""Done callbacks added once a token has ended: at the loop's next turn, in the order of `call_soon`, and many
of them in one handle of the loop's."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Token, gather, task_token_guard

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine

    from tests.conftest import NewCoordinator

    Run = Callable[[Callable[[list[Token[Any]]], Coroutine[Any, Any, None]]], None]

MANY = 200


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, new_coordinator: NewCoordinator, name: str) -> Run:
    """`run(main)`: `await main(ended tokens)` on such a loop."""
    factory = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop
    guarded = task_token_guard(name)(lambda i: i).options(coordinator=new_coordinator())

    def runs(main: Callable[[list[Token[Any]]], Coroutine[Any, Any, None]]) -> None:
        async def with_tokens() -> None:
            tokens = [guarded(i) for i in range(MANY)]
            await gather(*tokens)
            await asyncio.wait_for(main(tokens), 20)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(with_tokens())

    return runs


@pytest.mark.parametrize("run", ["asyncio"], indirect=True)
def test_among_what_the_loop_is_told_in_between(run: Run) -> None:
    async def main(tokens: list[Token[Any]]) -> None:
        loop, order = asyncio.get_running_loop(), list[Any]()
        expected: list[Any] = []

        def note(token: Token[Any]) -> None:
            order.append(token.result())

        for i, token in enumerate(tokens):
            token.add_done_callback(note)
            expected.append(i)
            if i % 7 == 0:
                loop.call_soon(order.append, ("soon", i))
                expected.append(("soon", i))
        assert order == []
        await asyncio.sleep(0)
        assert order == expected

    run(main)


def test_of_one_callback_in_order_and_at_the_next_turn(run: Run) -> None:
    async def main(tokens: list[Token[Any]]) -> None:
        order: list[int] = []

        def note(token: Token[Any]) -> None:
            order.append(token.result())

        for token in tokens:
            token.add_done_callback(note)
        assert order == []
        await asyncio.sleep(0)
        assert order == list(range(MANY))
        for token in tokens:  # they share nothing with those that have been called
            token.add_done_callback(note)
        await asyncio.sleep(0)
        assert order == 2 * list(range(MANY))

    run(main)


def test_of_different_callbacks_each_is_called(run: Run) -> None:
    async def main(tokens: list[Token[Any]]) -> None:
        order: list[int] = []
        for i, token in enumerate(tokens):
            token.add_done_callback(lambda _, i=i: order.append(i))
        await asyncio.sleep(0)
        assert order == list(range(MANY))

    run(main)


def test_those_that_are_added_by_them_come_a_turn_later(run: Run) -> None:
    async def main(tokens: list[Token[Any]]) -> None:
        seen: list[str] = []

        def later(_: object) -> None:
            seen.append("later")

        def first(token: Token[Any]) -> None:
            seen.append("first")
            token.add_done_callback(later)

        for token in tokens[:40]:
            token.add_done_callback(first)
        await asyncio.sleep(0)
        assert seen == ["first"] * 40
        await asyncio.sleep(0)
        assert seen == ["first"] * 40 + ["later"] * 40

    run(main)


def test_one_that_raises_is_told_and_the_others_are_called(run: Run) -> None:
    async def main(tokens: list[Token[Any]]) -> None:
        told: list[dict[str, Any]] = []
        loop, called = asyncio.get_running_loop(), list[int]()
        loop.set_exception_handler(lambda _, context: told.append(context))

        def fails(token: Token[Any]) -> None:
            called.append(token.result())
            if token.result() % 50 == 3:
                raise LookupError(token.result())

        for token in tokens:
            token.add_done_callback(fails)
        await asyncio.sleep(0)
        assert called == list(range(MANY))
        assert [context["exception"].args[0] for context in told] == [3, 53, 103, 153]
        assert "Exception in callback" in told[0]["message"]

    run(main)


@pytest.mark.parametrize("leaves", [SystemExit, KeyboardInterrupt])
def test_one_that_exits_loses_no_other(
    new_coordinator: NewCoordinator, name: str, leaves: type[BaseException]
) -> None:
    guarded = task_token_guard(name)(lambda i: i).options(coordinator=new_coordinator())
    called: list[int] = []

    def exits(token: Token[Any]) -> None:
        called.append(token.result())
        if token.result() == 60:
            raise leaves

    async def main() -> None:
        tokens = [guarded(i) for i in range(MANY)]
        await gather(*tokens)
        for token in tokens:
            token.add_done_callback(exits)
        asyncio.get_running_loop().call_soon(called.append, -1)
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    with pytest.raises(leaves):
        loop.run_until_complete(task)
    assert called == list(range(61))
    loop.run_until_complete(task)
    assert called == [*range(MANY), -1]
    loop.close()


@pytest.mark.parametrize("run", ["asyncio"], indirect=True)
def test_what_is_told_after_them_comes_after_them(run: Run) -> None:
    """However long they take."""

    async def main(tokens: list[Token[Any]]) -> None:
        order: list[Any] = []

        def slow(token: Token[Any]) -> None:
            order.append(token.result())
            time.sleep(0.000_1)

        for token in tokens:
            token.add_done_callback(slow)
        asyncio.get_running_loop().call_soon(order.append, "soon")
        tokens[-1].add_done_callback(lambda _: order.append("another"))
        await asyncio.sleep(0)
        assert order == [*range(MANY), "soon", "another"]

    run(main)


def test_what_was_called_is_not_kept_by_what_is_to_come(run: Run) -> None:
    async def main(tokens: list[Token[Any]]) -> None:
        class Callback:
            def __call__(self, _: object) -> None:
                pass

        first = Callback()
        gone = weakref.ref(first)
        seen: list[bool] = []

        def look(_: object) -> None:
            gc.collect()
            seen.append(gone() is None)

        tokens[0].add_done_callback(first)
        del first
        tokens[1].add_done_callback(look)
        tokens[2].add_done_callback(look)
        await asyncio.sleep(0)
        assert seen[-1]

    run(main)


def test_a_loop_in_debug_mode_names_the_slow_one(run: Run, logged: list[logging.LogRecord]) -> None:
    async def main(tokens: list[Token[Any]]) -> None:
        asyncio.get_running_loop().set_debug(True)

        def dawdle(_: object) -> None:
            time.sleep(0.2)

        tokens[0].add_done_callback(lambda _: None)
        tokens[1].add_done_callback(dawdle)
        await asyncio.sleep(0.01)

    run(main)
    slow = [record.getMessage() for record in logged]
    logged.clear()
    assert any("dawdle" in message for message in slow)


def test_a_closed_loop_calls_none_and_lets_go_of_them(
    new_coordinator: NewCoordinator, name: str
) -> None:
    guarded = task_token_guard(name)(lambda i: i).options(coordinator=new_coordinator())
    called: list[object] = []

    async def main() -> list[weakref.ref[Any]]:
        tokens = [guarded(i) for i in range(MANY)]
        await gather(*tokens)
        return [weakref.ref(token) for token in add(tokens)]

    def add(tokens: list[Token[Any]]) -> list[Token[Any]]:
        for token in tokens:
            token.add_done_callback(called.append)
        asyncio.get_running_loop().stop()
        return tokens

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    loop.run_forever()
    tokens = task.result()
    loop.close()
    del task
    gc.collect()
    assert called == []
    assert not any(ref() for ref in tokens)
