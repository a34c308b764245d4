"""The gate under fire: tokens end at random moments while limits, keys and queues hold."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    GateFull,
    Token,
    TokenExpired,
    TokenKilled,
    TokenState,
    task_token_guard,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import NewCoordinator
    from tests.stress.conftest import Crowd, WaitUntil

TIMEOUT = 60.0
ENDED = ("completed", "failed", "cancelled", "expired", "killed")


class Watched:
    """A function that sees how many of it are inside at once, in all and for each key, which of its
    calls have run, and in which order those of a key began."""

    __name__ = "watched"

    def __init__(self, cost: float = 0.0) -> None:
        self.cost = cost  # seconds of work
        self.lock = threading.Lock()
        self.inside: Counter[Any] = Counter()
        self.most_inside = 0
        self.most_of_key = 0
        self.began: dict[Any, list[int]] = {}
        self.ran: Counter[int] = Counter()

    def __call__(self, number: int, key: Any = None) -> int:
        with self.lock:
            self.ran[number] += 1
            self.inside[key] += 1
            self.most_inside = max(self.most_inside, self.inside.total())
            self.most_of_key = max(self.most_of_key, self.inside[key])
            self.began.setdefault(key, []).append(number)
        until = time.monotonic() + self.cost
        while time.monotonic() < until:
            pass
        with self.lock:
            self.inside[key] -= 1
        return number

    def check(self, tokens: list[Token[int]]) -> Counter[str]:
        """Each token has ended, once, and its function ran or did not run as it reports."""
        states: Counter[str] = Counter()
        for number, token in enumerate(tokens):
            assert token.done(), f"{token!r} was lost"
            states[token.state.name.lower()] += 1
            started = token.timestamps[2] != 0
            assert self.ran[number] == started, f"{token!r} ran {self.ran[number]} times"
            if token.state is TokenState.COMPLETED:
                assert token.result() == number
            elif not token.cancelled():
                assert isinstance(token.exception(), (TokenKilled, TokenExpired))
        return states


def settle(coordinator: Coordinator, wait_until: WaitUntil) -> None:
    asyncio.run(asyncio.wait_for(coordinator.drain(), TIMEOUT))
    wait_until(lambda: coordinator.stats().totals.abandoned_now == 0, "functions to return")
    stats = coordinator.stats()
    each_of: list[Any] = [*stats.operations.values(), stats.totals]
    for of in each_of:
        assert sum(getattr(of, each) for each in ENDED) == of.submitted, f"not added up: {of}"
        assert (of.waiting, of.admitted, of.executing) == (0, 0, 0), of


def end_at_random(
    tokens: list[Token[int]], seed: float, share: float, done: threading.Event
) -> int:
    """Cancels and kills what others make, until they are done; returns how often it won."""
    dice, won, at = random.Random(seed), 0, 0
    while not (done.is_set() and at >= len(tokens)):
        if at >= len(tokens):
            done.wait(0.001)
            continue
        token = tokens[at]
        at += 1
        if dice.random() < share:
            won += token.cancel() if dice.random() < 0.5 else token.kill("storm")
    return won


# -- limits and keys -------------------------------------------------------------------------------


def test_never_five_where_four_may(
    new_coordinator: NewCoordinator, crowd: Crowd, dice: random.Random, wait_until: WaitUntil
) -> None:
    """Ten thousand tokens, about half of them cancelled, killed or expired as they execute."""
    coordinator = new_coordinator(thread_workers=16)
    watched, done = Watched(cost=20e-6), threading.Event()
    guarded = task_token_guard("storm of limits", limit=4)(watched)
    free = guarded.options(coordinator=coordinator)
    short = free.options(run_timeout=10e-6)
    tokens: list[Token[int]] = []
    seed = dice.random()

    def work(number: int) -> None:
        if number == 0:
            for i in range(10_000):
                tokens.append((short if i % 4 == 0 else free)(i))
            done.set()
        else:
            end_at_random(tokens, seed + number, 0.2, done)

    crowd(3, work)
    settle(coordinator, wait_until)
    states = watched.check(tokens)
    assert watched.most_inside <= 4, f"{watched.most_inside} were inside at once"
    assert states["completed"] > 0
    assert states["expired"] > 0
    assert coordinator.stats().totals.abandoned_total > 0


@pytest.mark.parametrize("key_limit", [1, 3])
def test_keys_hold(
    new_coordinator: NewCoordinator,
    crowd: Crowd,
    dice: random.Random,
    wait_until: WaitUntil,
    key_limit: int,
) -> None:
    coordinator = new_coordinator(thread_workers=8)
    watched, done = Watched(), threading.Event()
    guarded = task_token_guard(
        f"storm of keys {key_limit}", key=lambda number, key: key, key_limit=key_limit, limit=6
    )(watched).options(coordinator=coordinator)
    short = guarded.options(timeout=0.002)
    tokens: list[Token[int]] = []
    seed = dice.random()

    def work(number: int) -> None:
        if number == 0:
            for i in range(6_000):
                tokens.append((short if i % 5 == 0 else guarded)(i, i % 7 if i % 2 else i))
            done.set()
        else:
            end_at_random(tokens, seed + number, 0.25, done)

    crowd(3, work)
    settle(coordinator, wait_until)
    states = watched.check(tokens)
    assert states["completed"] > 0
    assert watched.most_of_key <= key_limit
    assert watched.most_inside <= 6
    if key_limit == 1:
        assert all(order == sorted(order) for order in watched.began.values()), "out of order"


def test_a_hundred_thousand_are_cancelled(
    new_coordinator: NewCoordinator, dice: random.Random, wait_until: WaitUntil
) -> None:
    coordinator = new_coordinator(thread_workers=4)
    sys.setswitchinterval(1e-4)  # it is many enough without changing threads at every step
    watched = Watched()
    guarded = task_token_guard("storm of cancels", limit=3)(watched)
    call = guarded.options(coordinator=coordinator)
    tokens: list[Token[int]] = []

    async def main() -> None:
        while len(tokens) < 100_000:
            batch = [call(len(tokens) + i) for i in range(5_000)]
            tokens.extend(batch)
            for token in batch:
                if dice.random() < 0.9:
                    token.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([*map(asyncio.ensure_future, tokens)])

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    settle(coordinator, wait_until)
    states = watched.check(tokens)
    assert states.total() == 100_000
    assert set(states) <= {"completed", "cancelled"}
    assert watched.most_inside <= 3


def test_expiry_while_waiting_and_while_executing(
    new_coordinator: NewCoordinator, dice: random.Random, wait_until: WaitUntil
) -> None:
    coordinator = new_coordinator(thread_workers=4)
    watched = Watched(cost=50e-6)
    guarded = task_token_guard("storm of expiry", limit=4)(watched)
    call = guarded.options(coordinator=coordinator)
    tokens = [
        call.options(timeout=dice.random() * 0.3, run_timeout=dice.random() * 200e-6)(i)
        for i in range(5_000)
    ]
    settle(coordinator, wait_until)
    states = watched.check(tokens)
    assert set(states) <= {"completed", "expired"}
    assert states["expired"] > 0
    assert watched.most_inside <= 4
    for token in tokens:
        created, _, _, finished = token.timestamps
        if token.state is TokenState.EXPIRED:
            assert token.deadline is not None
            assert finished >= token.deadline * 1e9 - 1e3, "it expired before its time"
            assert finished > created


def test_first_calls_from_many_threads_share_one_limit(
    new_coordinator: NewCoordinator, crowd: Crowd, wait_until: WaitUntil
) -> None:
    """An operation begins once, whoever comes first."""
    for round_number in range(60):
        coordinator = new_coordinator(thread_workers=6)
        watched = Watched()
        guarded = task_token_guard(f"storm of first calls {round_number}", limit=2)(watched)
        call = guarded.options(coordinator=coordinator)
        tokens: list[Token[int]] = []
        crowd(6, lambda number: tokens.append(call(number)))  # noqa: B023 - it has run by then
        settle(coordinator, wait_until)
        assert watched.most_inside <= 2
        assert [token.result() for token in tokens if token.done()] == [
            token.result(TIMEOUT) for token in tokens
        ]
        assert coordinator.stats().operations[guarded.operation].completed == 6


# -- overflow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["reject", "shed_oldest", "block"])
def test_nothing_is_lost_where_queues_overflow(
    new_coordinator: NewCoordinator,
    crowd: Crowd,
    wait_until: WaitUntil,
    overflow: Any,
    dice: random.Random,
) -> None:
    coordinator = new_coordinator(thread_workers=4)
    watched = Watched()
    guarded = task_token_guard(
        f"storm of overflow {overflow}", limit=2, max_waiting=5, overflow=overflow
    )(watched)
    call = guarded.options(coordinator=coordinator)
    made: list[list[Token[int]]] = [[] for _ in range(5)]
    mapped: list[Any] = []
    most_waiting: list[int] = []
    done = threading.Event()
    seed = dice.random()

    def work(number: int) -> None:
        numbers = range(number * 1_500, (number + 1) * 1_500)
        if number < 4:
            for i in numbers:
                made[number].append(call(i))
        elif number == 4:
            try:
                mapped.extend(call.map(numbers, in_flight=50, return_exceptions=True))
            finally:
                done.set()
        else:
            end_at_random(made[0], seed, 0.1, done)
            stats = coordinator.stats()
            most_waiting.append(stats.operations[guarded.operation].waiting)

    crowd(6, work)
    settle(coordinator, wait_until)
    assert max(most_waiting) <= 5
    states = watched.check([token for each in made for token in each])
    errors = [each for each in mapped if not isinstance(each, int)]
    of = coordinator.stats().operations[guarded.operation]
    assert (len(mapped), of.submitted) == (1_500, 7_500)
    assert of.completed == states["completed"] + 1_500 - len(errors)
    errors += [token.exception() for each in made for token in each if not fine(token)]
    assert sum(type(error) is GateFull for error in errors) == of.rejected + of.shed
    # Only calls of others make a token of a map give way: the map itself waits for room.
    assert (of.rejected > 0, of.shed > 0) == (overflow == "reject", overflow == "shed_oldest")


def fine(token: Token[int]) -> bool:
    return token.state in (TokenState.COMPLETED, TokenState.CANCELLED)


# -- operators at work -----------------------------------------------------------------------------


def test_kill_of_each_state_from_each_thread(
    new_coordinator: NewCoordinator, crowd: Crowd, wait_until: WaitUntil
) -> None:
    """By number, by operation, by the token, from plain threads, loops and workers."""
    coordinator = new_coordinator(thread_workers=4)
    watched, done = Watched(cost=100e-6), threading.Event()
    guarded = task_token_guard("storm of kills", limit=3)(watched)
    call = guarded.options(coordinator=coordinator)
    tokens: list[Token[int]] = []
    won: list[int] = []
    everybody = threading.Barrier(6)

    def by_number() -> int:
        return sum(coordinator.kill(token.id, "number") for token in tokens[-3:])

    async def on_a_loop() -> int:
        return sum(token.kill("loop") for token in tokens[-9:-6])

    enders: list[Callable[[], int]] = [
        by_number,
        lambda: sum(token.kill("token") for token in tokens[-6:-3]),
        lambda: asyncio.run(on_a_loop()),
        lambda: coordinator.submit(by_number).result(TIMEOUT),
        lambda: coordinator.kill_operation(guarded, "operation"),
    ]

    def work(number: int) -> None:
        if number == len(enders):
            coordinator.pause(guarded)
            tokens.extend(call(i) for i in range(50))
            everybody.wait(TIMEOUT)  # all find something to end, at least once
            everybody.wait(TIMEOUT)
            coordinator.resume(guarded)
            tokens.extend(call(i) for i in range(50, 4_000))
            done.set()
            return
        everybody.wait(TIMEOUT)
        mine = enders[number]()
        everybody.wait(TIMEOUT)
        while not done.is_set():
            mine += enders[number]()
        won.append(mine)

    crowd(len(enders) + 1, work)
    settle(coordinator, wait_until)
    states = watched.check(tokens)
    assert states["killed"] == sum(won) > 0
    assert set(states) <= {"killed", "completed"}
    assert watched.most_inside <= 3


def test_a_policy_that_changes_while_tokens_wait(
    new_coordinator: NewCoordinator, crowd: Crowd, dice: random.Random, wait_until: WaitUntil
) -> None:
    coordinator = new_coordinator(thread_workers=8)
    watched, done = Watched(), threading.Event()
    guarded = task_token_guard("storm of policies", limit=4, key=lambda number, key: key)(watched)
    call = guarded.options(coordinator=coordinator)
    tokens: list[list[Token[int]]] = [[], []]

    def work(number: int) -> None:
        if number == 2:
            while not done.is_set():
                coordinator.configure(
                    guarded,
                    limit=dice.choice([1, 2, 4]),
                    key_limit=dice.choice([1, 2, 5]),
                    priority=dice.randrange(-3, 3),
                    max_waiting=dice.choice([None, 10, 1_000]),
                    overflow=dice.choice(["reject", "shed_oldest", "block"]),
                    run_timeout=dice.choice([None, 1e-5, 10]),
                )
                if dice.random() < 0.3:
                    coordinator.pause(guarded)
                    coordinator.resume(guarded)
        else:
            for i in range(3_000):
                tokens[number].append(call(number * 3_000 + i, i % 5))
            done.set()

    crowd(3, work)
    settle(coordinator, wait_until)
    states = watched.check([*tokens[0], *tokens[1]])
    assert states.total() == 6_000
    assert states["completed"] > 0
    assert watched.most_inside <= 4, "no limit was ever higher"
