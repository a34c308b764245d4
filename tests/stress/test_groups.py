"""Groups by the hundred, failing and cancelled at random moments: every token ends once, and a group
that has been left runs nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import time
from functools import partial
from typing import TYPE_CHECKING

from tokengate import Token, TokenGroup

if TYPE_CHECKING:
    from tests.stress.books import Books
    from tests.stress.conftest import Crowd

GROUPS = 500


class Body:
    """A function that knows how often it ran, and whether it is on a stack."""

    def __init__(self, wrong: bool, naps: float) -> None:
        self.wrong = wrong
        self.naps = naps
        self.running = False
        self.calls = 0

    def __call__(self) -> None:
        self.running = True
        self.calls += 1
        try:
            time.sleep(self.naps)
            if self.wrong:
                raise LookupError("on purpose")
        finally:
            self.running = False


def bodies(mine: random.Random) -> list[Body]:
    wrong = mine.choice((0.0, 0.05, 0.5))
    return [
        Body(mine.random() < wrong, mine.choice((0.0, 0.0, 0.0002)))
        for _ in range(mine.randrange(25))
    ]


def check(
    made: list[tuple[Body, Token[object]]], error: BaseException | None, cancelled: bool
) -> None:
    """What must be so once a group has been left."""
    failed = [token for _, token in made if token.failed and not token.cancelled()]
    for body, token in made:
        assert token.done(), token
        assert not token.abandoned, token
        assert not body.running, token
        assert body.calls <= 1
        assert body.calls == 1 or token.cancelled()
    if failed:
        assert isinstance(error, ExceptionGroup), (error, failed)
        assert {id(each) for each in error.exceptions} == {id(each.exception()) for each in failed}
    elif error is None:
        assert cancelled or all(not token.cancelled() for _, token in made)
    else:
        assert isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError)), error
        assert cancelled, error


def test_on_threads(books: Books, crowd: Crowd, dice: random.Random) -> None:
    seeds = [dice.random() for _ in range(4)]

    def work(number: int) -> None:
        mine = random.Random(seeds[number])
        for _ in range(GROUPS):
            made: list[tuple[Body, Token[object]]] = []
            error: BaseException | None = None
            cancelled = False
            try:
                with TokenGroup() as group:
                    for body in bodies(mine):
                        made.append((body, books.call(body, group.start)))
                    if made and mine.random() < 0.3:
                        one = mine.choice(made)[1]
                        cancelled = one.cancel()
                        one.result()
            except BaseException as caught:
                error = caught
            check(made, error, cancelled)

    crowd(4, work)


def test_on_a_loop(books: Books, dice: random.Random) -> None:
    async def one(seed: float) -> None:
        mine = random.Random(seed)
        made: list[tuple[Body, Token[object]]] = []
        error: BaseException | None = None
        task = asyncio.current_task()
        assert task is not None
        cancelled = mine.random() < 0.3
        if cancelled:
            asyncio.get_running_loop().call_later(mine.random() * 0.01, task.cancel)
        try:
            async with TokenGroup() as group:
                for body in bodies(mine):
                    made.append((body, books.call(body, group.start)))
                    if mine.random() < 0.1:
                        await asyncio.sleep(0)
                if made and mine.random() < 0.3:
                    await mine.choice(made)[1]
        except BaseException as caught:
            error = caught
        check(made, error, cancelled)
        assert task.cancelling() <= cancelled

    async def main() -> None:
        for _ in range(GROUPS // 10):
            tasks = [asyncio.ensure_future(one(dice.random())) for _ in range(20)]
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():  # late: the group had been left
                    task.result()

    asyncio.run(main())


def test_nested_in_workers(books: Books, dice: random.Random) -> None:
    """Groups in functions of groups, on fewer workers than there are functions that wait."""

    def tree(depth: int, seed: float) -> int:
        mine = random.Random(seed)
        if depth == 0:
            if mine.random() < 0.01:
                raise LookupError("on purpose")
            return 1
        with TokenGroup() as group:
            children = [
                books.call(partial(tree, depth - 1, mine.random()), group.start) for _ in range(3)
            ]
        assert not any(child.abandoned for child in children)
        return sum(int(str(child.result())) for child in children)

    outcomes = set()
    for _ in range(100):
        try:
            with TokenGroup() as group:
                root = books.call(partial(tree, 4, dice.random()), group.start)
            outcomes.add(root.result())
        except* LookupError:
            outcomes.add("failed")
    assert outcomes <= {81, "failed"}
