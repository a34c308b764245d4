"""Context variables: copied at submit, on the caller's thread; functions run inside the copy."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import threading
import weakref
from typing import TYPE_CHECKING, Any

from tokengate import Coordinator, get_coordinator, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


@task_token_guard
def read(_: Any = None) -> str:
    return var.get()


async def test_copied_at_submit_not_at_start(single: Coordinator, gate: Gate) -> None:
    held = single.submit(gate)
    gate.wait_entered()
    var.set("at submit")
    token = single.submit(var.get)
    var.set("later")
    gate.open()
    assert await token == "at submit"
    await held


async def test_what_the_function_sets_stays_inside(coordinator: Coordinator) -> None:
    var.set("outside")

    def change() -> str:
        var.set("inside")
        return var.get()

    assert await coordinator.submit(change) == "inside"
    assert var.get() == "outside"
    assert await coordinator.submit(var.get) == "outside"


async def test_each_call_has_a_copy_of_its_own(single: Coordinator) -> None:
    var.set("outside")

    def change(text: str) -> str:
        before = var.get()
        var.set(text)
        return before

    tokens = [single.submit(change, str(i)) for i in range(20)]
    assert set(await asyncio.gather(*tokens)) == {"outside"}


async def test_of_a_map_as_well(coordinator: Coordinator) -> None:
    var.set("at submit")
    assert await read.map(range(50)) == ["at submit"] * 50
    assert [value async for value in read.map(range(50))] == ["at submit"] * 50


async def test_tasks_have_their_own(coordinator: Coordinator) -> None:
    async def one(text: str) -> str:
        var.set(text)
        await asyncio.sleep(0)
        return await read()

    texts = [str(i) for i in range(50)]
    assert await asyncio.gather(*map(one, texts)) == texts


def test_threads_have_their_own(coordinator: Coordinator) -> None:
    got: dict[str, str] = {}

    def run(text: str) -> None:
        var.set(text)
        got[text] = coordinator.submit(var.get).result(20)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, str(i)))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == {text: text for text in map(str, range(8))}


async def test_nested_tokens_inherit_it(single: Coordinator) -> None:
    var.set("outermost")

    def outer() -> tuple[str, str]:
        inherited = read().result()
        var.set("outer")
        return inherited, read().result()

    assert await single.submit(outer) == ("outermost", "outer")
    assert var.get() == "outermost"


async def test_a_function_may_run_in_a_context_it_was_given(coordinator: Coordinator) -> None:
    context = contextvars.copy_context()
    context.run(var.set, "given")
    assert await coordinator.submit(context.run, var.get) == "given"


async def test_a_function_runs_in_its_context_and_can_be_told_so(
    coordinator: Coordinator,
) -> None:
    var.set("copied")
    context = await coordinator.submit(contextvars.copy_context)
    assert context[var] == "copied"
    assert context.run(var.get) == "copied"


async def test_the_decimal_context_goes_along(coordinator: Coordinator) -> None:
    with decimal.localcontext() as local:
        local.prec = 4
        token = coordinator.submit(lambda: decimal.Decimal(1) / decimal.Decimal(3))
    assert await token == decimal.Decimal("0.3333")


async def test_the_chosen_coordinator_goes_along(
    coordinator: Coordinator, new_coordinator: NewCoordinator
) -> None:
    other = new_coordinator(thread_workers=1)
    assert get_coordinator() is coordinator
    with use(other):
        assert await other.submit(get_coordinator) is other
        assert await coordinator.submit(get_coordinator) is other
        assert await read() == "unset"
    assert get_coordinator() is coordinator
    assert await coordinator.submit(get_coordinator) is coordinator
    assert other.stats().totals.submitted == 2


async def test_a_context_lives_no_longer_than_its_token_needs_it(single: Coordinator) -> None:
    class Value:
        pass

    holder: contextvars.ContextVar[Value] = contextvars.ContextVar("holder")
    ref = None
    for _ in range(3):
        value = Value()
        ref = ref or weakref.ref(value)  # the first is the one that a careless link would keep
        reset = holder.set(value)
        assert await single.submit(int) == 0
        holder.reset(reset)
        del value, reset
    await single.aclose()
    assert ref is not None
    assert ref() is None
