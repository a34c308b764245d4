"""Who goes next: priorities, for operations and for single calls, ageing, and fair share."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, gather, task_token_guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Gate, NewGate

TIMEOUT = 20.0


class Order:
    """Guarded functions that write down, in one list, what of them has run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Any] = []

    def operation(self, suffix: str, work: Callable[[], None] | None = None, **policy: Any) -> Any:
        def note(what: Any) -> None:
            self.seen.append(what)
            if work is not None:
                work()

        note.__qualname__ += suffix
        return task_token_guard(f"{self.name} {suffix}", **policy)(note)


def nap() -> None:
    """Long beside what a busy machine adds to a run: shares are kept in time, not in runs."""
    time.sleep(0.001)


@pytest.fixture
def order(name: str) -> Order:
    return Order(name)


async def in_order(coordinator: Coordinator, submit: Callable[[], Any]) -> None:
    """What `submit` makes waits until all of it is there, then runs."""
    coordinator.pause()
    submit()
    coordinator.resume()
    await coordinator.drain()


async def test_higher_goes_first(single: Coordinator, order: Order) -> None:
    low, high = order.operation("low", priority=1), order.operation("high", priority=2)
    usual, lowest = order.operation("usual"), order.operation("lowest", priority=-5)

    def submit() -> None:
        for each, word in ((lowest, "lowest"), (low, "low"), (usual, "usual"), (high, "high")):
            for _ in range(3):
                each(word)

    await in_order(single, submit)
    assert order.seen == ["high"] * 3 + ["low"] * 3 + ["usual"] * 3 + ["lowest"] * 3


async def test_of_single_calls(single: Coordinator, order: Order) -> None:
    work = order.operation("work", priority=5)

    def submit() -> None:
        for round_number in range(3):
            for priority in (7, -2, 5, 0):
                work.options(priority=priority)((priority, round_number))
            work((5, round_number + 0.5))

    await in_order(single, submit)
    in_fives = [(5, 0), (5, 0.5), (5, 1), (5, 1.5), (5, 2), (5, 2.5)]
    assert order.seen == [
        *((7, i) for i in range(3)),
        *in_fives,
        *((0, i) for i in range(3)),
        *((-2, i) for i in range(3)),
    ]


async def test_a_call_goes_before_other_operations(single: Coordinator, order: Order) -> None:
    one, two = order.operation("one"), order.operation("two", priority=3)

    def submit() -> None:
        one("one")
        two("two")
        one.options(priority=4)("urgent")
        two.options(priority=-1)("leisurely")

    await in_order(single, submit)
    assert order.seen == ["urgent", "two", "one", "leisurely"]


async def test_of_a_map(single: Coordinator, order: Order) -> None:
    work = order.operation("work")
    single.pause()
    slow = asyncio.ensure_future(work.map(["slow"] * 5))
    fast = asyncio.ensure_future(work.options(priority=1).map(["fast"] * 5))
    await asyncio.sleep(0)
    while single.stats().totals.waiting < 10:
        await asyncio.sleep(0)
    single.resume()
    await asyncio.gather(slow, fast)
    assert order.seen == ["fast"] * 5 + ["slow"] * 5


async def test_many_priorities_of_one_operation(single: Coordinator, order: Order) -> None:
    """More than anybody needs; they must all run, whatever their order."""
    work = order.operation("work")

    def submit() -> None:
        for priority in range(200):
            work.options(priority=priority * 7 % 200)(priority)

    await in_order(single, submit)
    assert sorted(order.seen) == list(range(200))


async def test_the_greatest_and_the_least(single: Coordinator, order: Order) -> None:
    work = order.operation("work")

    def submit() -> None:
        for priority in (0, -(2**31) + 1, 2**31 - 1):
            work.options(priority=priority)(priority)

    await in_order(single, submit)
    assert order.seen == [2**31 - 1, 0, -(2**31) + 1]


async def test_changed_for_what_waits(single: Coordinator, order: Order) -> None:
    one, two = order.operation("one"), order.operation("two", priority=1)

    def submit() -> None:
        for _ in range(3):
            one("one")
            two("two")
        single.configure(one, priority=2)

    await in_order(single, submit)
    assert order.seen == ["one"] * 3 + ["two"] * 3


async def test_lowered_for_what_waits(single: Coordinator, order: Order) -> None:
    one, two = order.operation("one", priority=3), order.operation("two", priority=1)

    def submit() -> None:
        for _ in range(3):
            one("one")
            two("two")
        single.configure(one.operation, priority=-3)

    await in_order(single, submit)
    assert order.seen == ["two"] * 3 + ["one"] * 3


async def test_a_high_one_at_its_limit_holds_nobody_up(
    coordinator: Coordinator, gate: Gate, order: Order, name: str
) -> None:
    high = task_token_guard(name, limit=1, priority=10)(gate)
    tokens = [high(i) for i in range(5)]
    await gate.entered()
    low = order.operation("low", priority=-10)
    await gather(*[low(i) for i in range(20)])
    assert sorted(order.seen) == list(range(20))
    gate.open()
    assert await gather(*tokens) == list(range(5))


async def test_nothing_starves(coordinator: Coordinator, name: str) -> None:
    """Calls of a high priority that never end hold up a low one for some seconds at most."""
    done = threading.Event()
    runs = itertools.count()

    def work() -> None:
        next(runs)
        if not done.is_set():
            high()  # whoever runs sees to it that there is always one more

    high = task_token_guard(name, priority=10)(work)
    coordinator.pause()
    for _ in range(50):
        high()
    low = task_token_guard(f"{name}, low")(done.set)()
    coordinator.resume()
    try:
        async with asyncio.timeout(TIMEOUT):
            await low
    finally:
        done.set()
    await coordinator.drain()
    assert next(runs) > 1_000, "it was no test: the high ones hardly ran"


# -- equal priorities ------------------------------------------------------------------------------


async def test_in_the_order_of_the_calls(single: Coordinator, order: Order) -> None:
    work = order.operation("work", priority=4)
    await in_order(single, lambda: [work(i) for i in range(100)])
    assert order.seen == list(range(100))


async def test_a_newcomer_does_not_wait_for_a_long_queue(
    single: Coordinator, new_gate: NewGate, order: Order
) -> None:
    """Operations share the workers by the time they use, whoever has more in the queue."""
    hold = new_gate()
    held = single.submit(hold)
    await hold.entered()
    many, few = order.operation("many"), order.operation("few")
    tokens = [many("many") for _ in range(500)]
    tokens.append(few("few"))
    hold.open()
    await gather(held, *tokens)
    assert order.seen.index("few") <= 40, "one of few waited for hundreds of the other operation"


async def test_two_long_queues_take_turns(single: Coordinator, order: Order) -> None:
    one, two = order.operation("one", work=nap), order.operation("two", work=nap)

    def submit() -> None:
        for word, each in (("one", one), ("two", two)):
            for _ in range(200):
                each(word)

    await in_order(single, submit)
    first_half = order.seen[:200]
    assert 40 < first_half.count("one") < 160, "equal queues did not share the worker"


async def test_a_weight_is_believed_until_measured(single: Coordinator, name: str) -> None:
    """Of two new operations the one said to be light gets more turns."""
    seen: list[str] = []
    tokens = []
    single.pause()
    for weight in ("heavy", "light"):

        def note(weight: str = weight) -> None:
            seen.append(weight)

        note.__qualname__ += weight
        guarded = task_token_guard(f"{name} {weight}", {"weight": weight})(note)
        tokens += [guarded() for _ in range(4)]
    single.resume()
    await gather(*tokens)
    assert seen.index("light") <= 1
    assert sorted(seen) == ["heavy"] * 4 + ["light"] * 4
