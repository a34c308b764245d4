"""The contexts that functions and callbacks run in, alone and in bursts that share one copy."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, gather, task_token_guard

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, Until

MANY = 100  # well more in a row than share nothing
var: contextvars.ContextVar[Any] = contextvars.ContextVar("var")


class Value:
    """What can be referred to weakly."""


@pytest.fixture
def look(name: str) -> Any:
    return task_token_guard(name)(lambda _=None: var.get("unset"))


@pytest.fixture
def swap(name: str) -> Any:
    """Gives what is set and sets something else."""

    def run(value: object) -> object:
        found = var.get("unset")
        var.set(value)
        return found

    return task_token_guard(f"swap {name}")(run)


async def test_each_call_sees_what_was_set_when_it_was_made(
    coordinator: Coordinator, look: Any
) -> None:
    tokens = []
    for i in range(3 * MANY):
        if i % 50 == 0 or i < 30:
            var.set(i)
        tokens.append(look())
    seen = await gather(*tokens)
    assert seen == [i if i < 30 else max(29, i - i % 50) for i in range(3 * MANY)]


async def test_what_is_set_and_reset_between_calls(coordinator: Coordinator, look: Any) -> None:
    var.set("before")
    tokens = []
    for _ in range(MANY):
        tokens.append(look())
        token = var.set("between")
        tokens.append(look())
        var.reset(token)
    assert await gather(*tokens) == ["before", "between"] * MANY


async def test_what_a_function_sets_is_its_own(single: Coordinator, swap: Any) -> None:
    var.set("caller's")
    seen = await gather(*(swap(i) for i in range(MANY)))
    assert seen == ["caller's"] * MANY
    assert await swap.map(range(MANY)) == ["caller's"] * MANY
    assert var.get() == "caller's"


async def test_a_function_that_undoes_what_it_sets_late(single: Coordinator, name: str) -> None:
    """What it keeps of its context does not let it into that of the next call."""
    var.set("caller's")
    kept: list[contextvars.Token[Any]] = []
    refused = 0

    @task_token_guard(name)
    def run(_: int) -> Any:
        nonlocal refused
        if kept:
            with pytest.raises(ValueError, match="different Context"):
                var.reset(kept.pop())
            refused += 1
        found = var.get()
        token = var.set("set")
        var.reset(token)
        kept.append(var.set("kept"))
        return found

    assert await gather(*map(run, range(MANY))) == ["caller's"] * MANY
    assert refused == MANY - 1


async def test_of_one_that_runs_others_while_it_waits(single: Coordinator, name: str) -> None:
    var.set("caller's")

    @task_token_guard(f"inner {name}")
    def inner(value: int) -> Any:
        found = var.get()
        var.set(("inner", value))
        return found

    @task_token_guard(f"outer {name}")
    def outer(value: int) -> list[Any]:
        found = [var.get(), *gather(inner(value), inner(value)).result()]
        var.set(("outer", value))
        return [*found, *gather(*(inner(value) for _ in range(3))).result(), var.get()]

    for i, seen in enumerate(await gather(*map(outer, range(MANY)))):
        assert seen == ["caller's"] * 3 + [("outer", i)] * 4


async def test_callbacks_have_their_own(coordinator: Coordinator, gate: Gate, name: str) -> None:
    guarded = task_token_guard(name)(gate)
    tokens = [guarded(i) for i in range(MANY)]
    seen: list[Any] = []

    def callback(_: object) -> None:
        seen.append(var.get("unset"))
        var.set("a callback's")

    for i, token in enumerate(tokens):
        if i % 30 == 0:
            var.set(i)
        token.add_done_callback(callback)
    tokens[-1].add_done_callback(callback)  # a second of the same token
    gate.open()
    await gather(*tokens)
    await asyncio.sleep(0)
    expected = sorted([*(i - i % 30 for i in range(MANY)), MANY - 1 - (MANY - 1) % 30])
    assert sorted(seen) == expected
    assert var.get() == 90


async def test_callbacks_of_ended_tokens(coordinator: Coordinator, look: Any) -> None:
    tokens = [look() for _ in range(MANY)]
    await gather(*tokens)
    seen: list[Any] = []
    for i, token in enumerate(tokens):
        if i % 30 == 0:
            var.set(i)
        token.add_done_callback(lambda _: seen.append(var.get()) or var.set("a callback's"))
    await asyncio.sleep(0)
    assert seen == [i - i % 30 for i in range(MANY)]


async def test_values_are_not_kept(coordinator: Coordinator, until: Until, name: str) -> None:
    """Once a burst is over nothing refers to what was set in its context, though nobody awaits it and
    nothing else is called."""
    guarded = task_token_guard(name)(lambda _: None)

    async def burst() -> weakref.ref[Value]:
        value = Value()
        var.set(value)
        for i in range(MANY):
            guarded(i)
        return weakref.ref(value)

    kept = await asyncio.create_task(burst())

    def gone() -> bool:
        gc.collect()
        return kept() is None

    await until(gone)


async def test_values_are_not_kept_by_the_next(
    single: Coordinator, gate: Gate, until: Until, name: str
) -> None:
    """A long function on the same worker does not keep what the short ones before it ran with."""
    guarded = task_token_guard(name)(lambda _: None)
    last = task_token_guard(f"last {name}", priority=-1)(gate)

    async def burst() -> tuple[weakref.ref[Value], Any]:
        value = Value()
        var.set(value)
        tokens = [guarded(i) for i in range(MANY)]
        stays = contextvars.Context().run(last)  # behind them, in a context of its own
        await gather(*tokens)
        return weakref.ref(value), stays

    kept, stays = await asyncio.create_task(burst())
    await gate.entered()

    def gone() -> bool:
        gc.collect()
        return kept() is None

    await until(gone)
    assert not stays.done()
    gate.open()
    await stays


async def test_a_finalizer_may_call(coordinator: Coordinator, look: Any, until: Until) -> None:
    """A value's finalizer runs wherever its context is dropped, and may make tokens itself."""
    made: list[Any] = []

    class Caller:
        def __del__(self) -> None:
            if asyncio._get_running_loop() is not None:
                made.extend(look() for _ in range(MANY))

    async def burst() -> None:
        var.set(Caller())
        for _ in range(MANY):
            look()

    for _ in range(3):
        await asyncio.create_task(burst())
    var.set("later")
    for _ in range(MANY):
        look()
    await coordinator.drain()
    await gather(*made)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        (((1, 2),), {}),
        (((),), {}),
        ((None,), {}),
        ((1,), {"b": 2}),
        ((1, 2), {}),
    ],
)
async def test_arguments_arrive_as_they_are(
    coordinator: Coordinator, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """One alone is kept without its tuple."""
    guarded: Any = task_token_guard(name)(lambda *args, **kwargs: (args, kwargs))
    assert await guarded(*args, **kwargs) == (args, kwargs)
    assert await guarded.options(key=lambda *args, **kwargs: len(args))(*args, **kwargs) == (
        args,
        kwargs,
    )
    if not kwargs:
        assert await guarded.starmap([args] * 3) == [(args, {})] * 3


def test_a_loop_that_calls_while_it_is_told(new_coordinator: NewCoordinator, name: str) -> None:
    """From another context: neither takes the other's values."""
    look = task_token_guard(name)(lambda: var.get("unset")).options(coordinator=new_coordinator())
    other = contextvars.Context()
    other.run(var.set, "other")
    made: list[Any] = []

    class Calling(asyncio.SelectorEventLoop):
        def call_soon(self, *args: Any, **kwargs: Any) -> Any:
            if calling and not made:
                made.append(None)
                made.extend(other.run(look) for _ in range(3))
            return super().call_soon(*args, **kwargs)

    async def main() -> None:
        nonlocal calling
        var.set("mine")
        calling = True
        tokens = [look() for _ in range(MANY)]
        calling = False
        assert len(made) == 4
        made.extend(other.run(look) for _ in range(MANY))
        assert set(await gather(*tokens)) == {"mine"}
        assert set(await gather(*made[1:])) == {"other"}

    calling = False
    with asyncio.Runner(loop_factory=Calling) as runner:
        runner.run(main())
