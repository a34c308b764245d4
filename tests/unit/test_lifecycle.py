"""The lifecycle: the core's own table against the one that is promised, and tokens against both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, Token, TokenKilled, TokenState, _core

if TYPE_CHECKING:
    from tests.conftest import Gate

S = TokenState

# What is promised: from, to. Every other pair must be impossible.
PROMISED = {
    S.CREATED: {S.WAITING, S.CANCELLED, S.EXPIRED, S.KILLED},
    S.WAITING: {S.ADMITTED, S.EXECUTING, S.FAILED, S.CANCELLED, S.EXPIRED, S.KILLED},
    S.ADMITTED: {S.EXECUTING, S.WAITING, S.FAILED, S.CANCELLED, S.EXPIRED, S.KILLED},
    S.EXECUTING: {S.COMPLETED, S.FAILED, S.CANCELLED, S.EXPIRED, S.KILLED},
}
EDGES = {(TokenState(source), TokenState(to)): by for source, to, by in _core.edges()}
ENDED = [state for state in TokenState if state.ended]


@pytest.mark.parametrize("source", TokenState)
@pytest.mark.parametrize("to", TokenState)
def test_the_core_has_exactly_the_edges_that_are_promised(
    source: TokenState, to: TokenState
) -> None:
    assert ((source, to) in EDGES) == (to in PROMISED.get(source, set()))


def test_no_edge_is_listed_twice() -> None:
    assert len(_core.edges()) == len(EDGES)


def test_an_ended_state_is_never_left() -> None:
    assert ENDED == [S.COMPLETED, S.FAILED, S.CANCELLED, S.EXPIRED, S.KILLED]
    assert not any(source.ended for source, _ in EDGES)


def test_each_edge_has_one_name_by_what_it_does() -> None:
    names = {
        "submit": {(S.CREATED, S.WAITING)},
        "try_admit": {(S.WAITING, S.ADMITTED)},
        "give_back": {(S.ADMITTED, S.WAITING)},
        "try_start": {(S.WAITING, S.EXECUTING), (S.ADMITTED, S.EXECUTING)},
        "finish": {(S.EXECUTING, S.COMPLETED), (S.EXECUTING, S.FAILED)},
        "fail_unrun": {(S.WAITING, S.FAILED), (S.ADMITTED, S.FAILED)},
        "end": {(source, to) for source in PROMISED for to in (S.CANCELLED, S.EXPIRED, S.KILLED)},
    }
    assert {edge: by for by, edges in names.items() for edge in edges} == EDGES


def test_the_states_have_the_numbers_of_the_core() -> None:
    assert [state.name for state in TokenState] == [
        "CREATED", "WAITING", "ADMITTED", "EXECUTING",
        "COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "KILLED",
    ]  # fmt: skip
    assert list(TokenState) == list(range(9))


class Stage:
    """Brings a token of one worker into a state and says what its function did."""

    def __init__(self, coordinator: Coordinator, gate: Gate) -> None:
        self.coordinator = coordinator
        self.gate = gate
        self.ran: list[str] = []
        self.others: list[Token[Any]] = []

    def bring(self, state: TokenState) -> Token[Any]:
        if state is S.EXECUTING:
            token = self.coordinator.submit(self.gate)
            self.gate.wait_entered()
        elif state is S.COMPLETED:
            token = self.coordinator.submit(self.note)
            token.result(20)
        elif state is S.FAILED:
            token = self.coordinator.submit(int, "no number")
            assert isinstance(token.exception(20), ValueError)
        else:
            token = self.queue(S.WAITING if state is S.WAITING else S.ADMITTED)
            if state is S.CANCELLED:
                token.cancel()
            elif state is S.KILLED:
                token.kill()
        assert token.state is state
        return token

    def queue(self, state: TokenState) -> Token[Any]:
        # The only worker is held: a few tokens known to be short are admitted, those behind wait.
        self.become_known_as_short()
        self.ran.clear()
        self.others.append(self.coordinator.submit(self.gate))
        self.gate.wait_entered()
        for _ in range(100):
            token = self.coordinator.submit(self.note)
            if token.state is state:
                return token
            self.others.append(token)
        raise AssertionError(f"no token came to be {state.name}")

    def become_known_as_short(self) -> None:
        # What is expected is a moving mean, and a run that was interrupted weighs in it for long.
        in_a_row = 0
        while in_a_row < 60:
            token = self.coordinator.submit(self.note)
            token.result(20)
            run_time = token.run_time
            assert run_time is not None
            in_a_row = in_a_row + 1 if run_time < 20e-6 else 0

    def note(self) -> str:
        self.ran.append("ran")
        return "result"

    def end(self) -> None:
        self.gate.open()
        for token in self.others:
            token.result(20)


@pytest.fixture
def stage(single: Coordinator, gate: Gate) -> Stage:
    return Stage(single, gate)


ACTIONS: list[tuple[str, Callable[[Token[Any]], bool], TokenState]] = [
    ("cancel", lambda token: token.cancel(), S.CANCELLED),
    ("kill", lambda token: token.kill("enough"), S.KILLED),
]
REACHABLE = [
    S.WAITING, S.ADMITTED, S.EXECUTING, S.COMPLETED, S.FAILED, S.CANCELLED, S.KILLED
]  # fmt: skip


@pytest.mark.parametrize("state", REACHABLE, ids=lambda state: state.name)
@pytest.mark.parametrize(("name", "act", "to"), ACTIONS, ids=[name for name, _, _ in ACTIONS])
def test_an_action_moves_a_token_along_its_edge_or_not_at_all(
    stage: Stage,
    state: TokenState,
    name: str,
    act: Callable[[Token[Any]], bool],
    to: TokenState,
) -> None:
    token = stage.bring(state)
    possible = (state, to) in EDGES
    assert act(token) is possible
    assert token.state is (to if possible else state)
    assert token.done()
    assert token.abandoned is (state is S.EXECUTING)
    stage.end()
    assert act(token) is False


@pytest.mark.parametrize("state", [S.WAITING, S.ADMITTED], ids=lambda state: state.name)
@pytest.mark.parametrize(("name", "act", "to"), ACTIONS, ids=[name for name, _, _ in ACTIONS])
def test_what_ended_before_it_started_never_runs(
    stage: Stage,
    state: TokenState,
    name: str,
    act: Callable[[Token[Any]], bool],
    to: TokenState,
) -> None:
    token = stage.bring(state)
    others = sum(other.state is not S.EXECUTING for other in stage.others)
    act(token)
    stage.end()
    stage.coordinator.submit(stage.note).result(20)
    assert len(stage.ran) == others + 1
    assert token.state is to
    assert token.run_time == 0


def test_left_alone_a_token_waits_executes_and_completes(single: Coordinator, gate: Gate) -> None:
    held = single.submit(gate)
    gate.wait_entered()
    seen: list[TokenState] = []
    made: list[Token[None]] = []

    def look() -> None:
        seen.append(made[0].state)

    others = [single.submit(int) for _ in range(50)]
    made.append(single.submit(look))
    assert made[0].state is S.WAITING
    gate.open()
    made[0].result(20)
    assert seen == [S.EXECUTING]
    assert made[0].state is held.state is S.COMPLETED
    for other in others:  # of another operation: it need not have waited for all of them
        assert other.result(20) == 0
        assert other.state is S.COMPLETED


async def test_what_each_end_gives_an_awaiter(single: Coordinator, gate: Gate) -> None:
    held = single.submit(gate, "value")
    gate.wait_entered()
    cancelled, killed = single.submit(int), single.submit(int)
    cancelled.cancel("not needed")
    killed.kill("by order")
    failed = single.submit(int, "no number")
    gate.open()
    assert await held == "value"
    with pytest.raises(ValueError, match="no number"):
        await failed
    with pytest.raises(asyncio.CancelledError, match="not needed"):
        await cancelled
    with pytest.raises(TokenKilled, match="by order") as caught:
        await killed
    assert caught.value.reason == "by order"
