"""Many threads and many event loops on one coordinator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Token, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd, NewBooks

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def fail() -> None:
    raise LookupError("on purpose")


def leave() -> None:
    raise SystemExit(3)


BODIES: tuple[Callable[[], object], ...] = (object, list, dict, fail, leave)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed here")
    return uvloop.new_event_loop  # type: ignore[no-any-return]


def test_many_threads_submit(books: Books, crowd: Crowd) -> None:
    ids: list[int] = []

    def submit(number: int) -> None:
        tokens = [books.call(BODIES[i % len(BODIES)]) for i in range(number, number + 8_000)]
        for token in tokens:
            token.exception()
        ids.extend(token.id for token in tokens)

    crowd(6, submit)
    assert sorted(ids) == list(range(1, 48_001))
    states = books.check()
    assert states == {"COMPLETED": 28_800, "FAILED": 19_200}


def test_loops_in_several_threads(books: Books, crowd: Crowd, loop_factory: LoopFactory) -> None:
    async def main(number: int) -> None:
        for _ in range(12):
            tokens = [books.call(BODIES[i % len(BODIES)]) for i in range(250)]
            if number % 2:
                ended = await asyncio.gather(*tokens, return_exceptions=True)
            else:
                ended = await tokengate.gather(*tokens, return_exceptions=True)
            for token, outcome in zip(tokens, ended, strict=True):
                assert outcome is (token.exception() or token.result())
        for _ in range(50):
            await books.call(object)

    def run(number: int) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(main(number), 60))

    crowd(4, run)
    assert books.check().total() == 4 * 3_050


def test_a_snapshot_is_consistent_at_any_moment(new_books: NewBooks, crowd: Crowd) -> None:
    books = new_books(thread_workers=2)

    def look() -> None:
        last = books.coordinator.stats().totals
        for _ in range(1_000):
            stats = books.coordinator.stats()
            now = stats.totals
            for name in ("submitted", "completed", "failed", "cancelled", "abandoned_total"):
                assert getattr(now, name) >= getattr(last, name), f"{name} went back"
            for name in ("waiting", "admitted", "executing", "abandoned_now"):
                assert getattr(now, name) >= 0, name
            ended = now.completed + now.failed + now.cancelled + now.expired + now.killed
            assert ended <= now.submitted, "more have ended than there ever were"
            lane = stats.lanes["thread"]
            assert 0 <= lane.active <= lane.workers
            last = now

    def submit(seed: int) -> None:
        dice = random.Random(seed)
        tokens: list[Token[object]] = []
        for _ in range(6_000):
            tokens.append(books.call(dice.choice(BODIES)))
            if dice.random() < 0.3:
                dice.choice(tokens).cancel()
        for token in tokens:
            if not token.cancelled():
                token.exception()

    crowd(4, lambda number: submit(number) if number % 2 else look())


def test_guards_called_for_the_first_time_at_once(
    new_coordinator: NewCoordinator, crowd: Crowd
) -> None:
    coordinator = new_coordinator(thread_workers=4)
    guards = [task_token_guard(f"first{i}")(_give_back) for i in range(200)]

    def call(number: int) -> None:
        with use(coordinator):
            tokens = [guard([number, i]) for i, guard in enumerate(guards)]
        for i, token in enumerate(tokens):
            assert token.result() == [number, i]

    crowd(6, call)
    operations = coordinator.stats().operations
    assert [operations[guard.operation].submitted for guard in guards] == [6] * len(guards)


def _give_back(value: Any) -> Any:
    return value
