"""What a test has left on a coordinator: told, then ended, so that it harms no other test."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

from tokengate.coordinator import Coordinator
from tokengate.errors import CoordinatorStopped
from tokengate.reports import describe, executing_tokens
from tokengate.token import Token, TokenState

__all__ = ["GRACE", "settle"]

GRACE = 5.0  # seconds for functions to return that nobody waits for any more
TOLD = 20  # tokens named one by one


def settle(coordinator: Coordinator, grace: float = GRACE) -> str:
    """Stop a coordinator that should have nothing left to do; returns what it had, "" for nothing.

    Tokens that have not ended are named and killed. Functions that still run - of those, and
    abandoned ones - get `grace` seconds to return; then they are told with their Python stacks and
    left to their daemon threads. Blocks no longer than that, on whatever thread, even a loop's.
    """
    left = _unended(coordinator)
    told = [_told(token) for token in left]
    coordinator._begin_stop(cancel_waiting=True)
    for token in left:
        token._kill_with(
            CoordinatorStopped(f"{coordinator!r}: the test was over and had left {token!r}")
        )
    coordinator._close()
    coordinator.resume()  # for a token that a worker has given back since then
    for lane in coordinator._threads():
        lane.join(grace)
    stuck = executing_tokens(coordinator._workers())
    parts: list[str] = []
    if told:
        more = [f"and {len(told) - TOLD} more"] if len(told) > TOLD else []
        parts += [
            f"{_count(told, 'token')} had not ended when the test was over (await them, or cancel "
            "them and wait for what runs):",
            *(f"  {each}" for each in [*told[:TOLD], *more]),
        ]
    if stuck:
        parts += [
            f"{_count(stuck, 'function')} had not returned {grace:g} s after the test was over, "
            "though nobody waits for the result:",
            *(each.rstrip() for each in describe(stuck)[:TOLD]),
        ]
    return "\n".join(parts)


def _unended(coordinator: Coordinator) -> list[Token[Any]]:
    if not _count_unended(coordinator):
        return []
    coordinator.pause()  # from here on tokens end, but none starts and so escapes the look
    deadline = monotonic() + 1.0
    while True:
        cores = coordinator._cores()
        found = {token.id: token for core in cores for token in core._waiting_tokens()}
        found |= {token.id: token for token, _ in executing_tokens(coordinator._workers())}
        left = [token for _, token in sorted(found.items()) if not token.done()]
        # one on its way from the ring to a worker is in neither place for a moment
        if len(left) >= _count_unended(coordinator) or monotonic() > deadline:
            return left
        sleep(0.001)


def _count_unended(coordinator: Coordinator) -> int:
    of = coordinator.stats().totals
    return of.submitted - (of.completed + of.failed + of.cancelled + of.expired + of.killed)


def _told(token: Token[Any]) -> str:
    caller = token.caller
    whose = "called outside any task" if caller is None else f"called by task {caller!r}"
    state = TokenState(token.state_code)  # an executor's future has no `state`
    return f"token {token.id} of {token.operation_type!r}, {state.name}, {whose}"


def _count(what: list[Any], name: str) -> str:
    return f"{len(what)} {name}{'' if len(what) == 1 else 's'}"
