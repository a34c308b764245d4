"""`key`: tokens of equal key run one after another, in the order of their calls."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, gather, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import Gate, NewGate, OthersRun, RunPython, Until

TIMEOUT = 20.0


def first_of(value: Any) -> Any:
    return value[0]


async def test_one_of_a_key_at_a_time(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, key=first_of)(gate)
    tokens = [guarded((key, i)) for i in range(5) for key in "ab"]
    await gate.entered(2)
    await others_run()
    assert gate.inside == 2
    gate.open()
    assert await gather(*tokens) == [(key, i) for i in range(5) for key in "ab"]
    assert gate.most_inside == 2


async def test_in_the_order_of_the_calls(coordinator: Coordinator, name: str) -> None:
    seen: dict[int, list[int]] = {key: [] for key in range(20)}

    def note(key: int, i: int) -> None:
        seen[key].append(i)

    guarded = task_token_guard(name, key=lambda key, i: key)(note)
    await gather(*[guarded(key, i) for i in range(100) for key in range(20)])
    assert all(order == list(range(100)) for order in seen.values())


async def test_keys_are_served_in_turn(single: Coordinator, name: str) -> None:
    """One client's hundred calls do not hold up another client's one."""
    seen: list[str] = []
    guarded = task_token_guard(name, key=first_of)(seen.append)
    single.pause()
    tokens = [guarded(call) for call in ("a1", "a2", "a3", "a4", "b1", "b2", "c1")]
    single.resume()
    await gather(*tokens)
    assert seen[:3] == ["a1", "b1", "c1"]
    assert sorted(seen[3:5]) == ["a2", "b2"]
    assert seen[5:] == ["a3", "a4"]


async def test_so_many_of_a_key_at_a_time(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, key=lambda _: "all", key_limit=3)(gate)
    tokens = [guarded(i) for i in range(10)]
    await gate.entered(3)
    await others_run()
    assert gate.inside == 3
    gate.open()
    assert await gather(*tokens) == list(range(10))
    assert gate.most_inside == 3


async def test_key_and_limit_both_hold(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, key=first_of, limit=2)(gate)
    tokens = [guarded((key, i)) for key in "abc" for i in range(3)]
    await gate.entered(2)
    await others_run()
    assert gate.inside == 2
    gate.open()
    await gather(*tokens)
    assert gate.most_inside == 2


async def test_the_key_is_asked_once_for_each_call_on_the_callers_thread(
    coordinator: Coordinator, name: str
) -> None:
    asked: list[Any] = []

    def key(*args: Any, **kwargs: Any) -> int:
        asked.append((args, kwargs, threading.get_ident()))
        return 1

    @task_token_guard(name, key=key)
    def add(x: int, y: int = 0) -> int:
        return x + y

    assert await add(1) == 1
    assert await add(1, y=2) == 3
    assert await add.map([4], y=1) == [5]
    here = threading.get_ident()
    assert asked == [((1,), {}, here), ((1,), {"y": 2}, here), ((4,), {"y": 1}, here)]


async def test_keys_equal_as_in_a_dict(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, key=lambda value: value)(gate)
    tokens = [guarded(value) for value in (1, 1.0, True, None, "1", None)]
    await gate.entered(3)
    await others_run()
    assert gate.inside == 3, "1, 1.0 and True are one key, and None is a key like others"
    gate.open()
    await gather(*tokens)


async def test_the_key_of_a_method(coordinator: Coordinator, name: str) -> None:
    """It has the signature of the function it stands above, as with every decorator."""

    class Account:
        def __init__(self, number: int) -> None:
            self.number = number
            self.seen: list[int] = []

        @task_token_guard(name, key=lambda self, amount: self.number)
        def book(self, amount: int) -> int:
            self.seen.append(amount)
            return amount

    account = Account(7)
    assert await gather(*[account.book(i) for i in range(50)]) == list(range(50))
    assert account.seen == list(range(50))
    assert await Account.book(account, 50) == 50


# -- what ends early -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "kill", "expire"])
async def test_an_abandoned_run_keeps_its_key(
    coordinator: Coordinator, gate: Gate, name: str, how: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, key=first_of)(gate)
    first = guarded.options(run_timeout=0.02 if how == "expire" else None)("a1")
    second, elsewhere = guarded("a2"), guarded("b1")
    await gate.entered(2)
    if how != "expire":
        assert getattr(first, how)()
    await asyncio.wait([asyncio.ensure_future(first)])
    assert first.abandoned
    await others_run()
    assert gate.calls == 2, "the abandoned run has lost its key"
    gate.let_pass(2)
    await gate.entered()
    gate.let_pass()
    assert await gather(*[second, elsewhere]) == ["a2", "b1"]
    assert not first.abandoned
    assert first.cancelled() or first.exception()


@pytest.mark.parametrize("how", ["cancel", "kill", "discard", "expire"])
async def test_one_that_ends_while_it_waits_lets_the_next_go(
    coordinator: Coordinator, gate: Gate, name: str, how: str
) -> None:
    guarded = task_token_guard(name, key=first_of)(gate)
    first = guarded("a1")
    await gate.entered()
    second = guarded.options(timeout=0.02 if how == "expire" else None)("a2")
    if how == "discard":
        assert coordinator.discard(name) == 1
    elif how != "expire":
        assert getattr(second, how)()
    await asyncio.wait([asyncio.ensure_future(second)])
    third = guarded("a3")
    gate.open()
    assert await gather(*[first, third]) == ["a1", "a3"]
    assert gate.calls == 2


@pytest.mark.parametrize("ended", ["completed", "failed", "cancelled", "discarded", "expired"])
async def test_a_key_is_forgotten_with_its_last_token(
    coordinator: Coordinator, name: str, until: Until, ended: str
) -> None:
    class Key:
        pass

    keys = [Key() for _ in range(50)]
    gone = [weakref.ref(key) for key in keys]

    def work(number: int) -> int:
        if ended == "failed":
            raise LookupError
        return number

    guarded = task_token_guard(name, key=lambda number: keys[number])(work)
    if ended not in ("completed", "failed"):
        coordinator.pause(guarded)
    timeout = 0.01 if ended == "expired" else None
    tokens = [guarded.options(timeout=timeout)(number) for number in range(50)]
    if ended == "cancelled":
        for token in tokens:
            token.cancel()
    elif ended == "discarded":
        assert coordinator.discard(name) == 50
    await asyncio.wait([*map(asyncio.ensure_future, tokens)])
    assert {token.state.name.lower() for token in tokens} <= {ended, "killed"}
    for token in tokens:
        assert token.cancelled() or token.exception() or ended == "completed"
    keys.clear()
    await until(lambda: gc.collect() + 1 and not any(ref() for ref in gone))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_keys_used_once_leave_no_memory(run_python: RunPython) -> None:
    told = run_python(
        """if True:
        import gc, resource
        from tokengate import task_token_guard
        @task_token_guard(key=lambda i: i)
        def work(i): pass
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()
        def wave(first, count):
            for _ in work.map(range(first, first + count), in_flight=2_000):
                pass
            gc.collect()
            return resident()
        looks = [wave(0, 20_000), *(wave(i * 40_000, 40_000) for i in range(1, 4))]
        # the allocator of free-threaded builds takes a megabyte now and then; a leak grows always
        print(min(after - before for before, after in zip(looks, looks[1:])) / 40_000)
        """
    )
    assert float(told) < 40, "bytes for each key that nobody uses any more"


# -- settings --------------------------------------------------------------------------------------


async def test_of_single_calls(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, key=first_of)(gate)
    tokens = [
        guarded("a1"),
        guarded("a2"),
        guarded.options(key=None)("a without"),
        guarded.options(key=lambda value: "another")("a otherwise"),
    ]
    await gate.entered(3)
    await others_run()
    assert gate.inside == 3
    gate.open()
    await gather(*tokens)


async def test_a_view_adds_a_key(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    view = task_token_guard(name)(gate).options(key=first_of)
    tokens = [view("a1"), view("a2"), view("b1")]
    await gate.entered(2)
    await others_run()
    assert gate.inside == 2
    gate.open()
    await gather(*tokens)


async def test_a_raised_key_limit_holds_at_once(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name, key=first_of)(gate)
    tokens = [guarded(f"a{i}") for i in range(6)]
    await gate.entered()
    coordinator.configure(name, key_limit=3)
    await gate.entered(2)
    await others_run()
    assert gate.inside == 3
    coordinator.configure(name, key_limit=1)
    gate.let_pass(2)
    await asyncio.wait([*map(asyncio.ensure_future, tokens)], return_when=asyncio.FIRST_COMPLETED)
    await others_run()
    assert gate.calls == 3
    gate.open()
    assert await gather(*tokens) == [f"a{i}" for i in range(6)]


async def test_another_key_holds_for_calls_to_come(
    coordinator: Coordinator, gate: Gate, name: str, others_run: OthersRun
) -> None:
    guarded = task_token_guard(name)(gate)
    before = [guarded("a1"), guarded("a2")]
    await gate.entered(2)
    coordinator.configure(guarded, key=first_of)
    after = [guarded("a3"), guarded("a4")]
    await gate.entered()
    await others_run()
    assert gate.inside == 3
    gate.open()
    await gather(*before, *after)


async def test_each_operation_has_keys_of_its_own(
    coordinator: Coordinator, new_gate: NewGate, name: str
) -> None:
    gates = new_gate(), new_gate()
    tokens = []
    for number, gate in enumerate(gates):
        guarded = task_token_guard(f"{name} {number}", key=first_of)(gate)
        tokens.append(guarded("a"))
    for gate in gates:
        await gate.entered()
        gate.open()
    await gather(*tokens)


class Slow:
    """Equal to a number; other threads run while it is looked up."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        time.sleep(0)  # lets them
        return self.number == (other.number if isinstance(other, Slow) else other)


@pytest.mark.parametrize("slow", [False, True], ids=["numbers", "objects come later"])
def test_keys_of_calls_from_many_threads(coordinator: Coordinator, name: str, slow: bool) -> None:
    inside: dict[int, int] = dict.fromkeys(range(5), 0)
    clashes = []

    def work(call: int) -> None:
        number = call % 5
        inside[number] += 1
        if inside[number] != 1:
            clashes.append(number)
        time.sleep(0)  # whoever else may run the same key has its chance
        inside[number] -= 1

    def key(call: int) -> int | Slow:
        return Slow(call % 5) if slow and call > 100 and call % 2 else call % 5

    guarded = task_token_guard(name, key=key)(work)

    def call() -> None:
        with use(coordinator):
            for token in [guarded(i) for i in range(400)]:
                token.result(TIMEOUT)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT)
    assert clashes == []
    assert coordinator.stats().operations[name].completed == 1_600
