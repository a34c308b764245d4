"""What the lanes run: importable by worker processes of every kind."""

from __future__ import annotations

from multiprocessing.connection import Connection
from time import sleep

from _work import burn, iterations_per_second
from tokengate import task_token_guard


def noop() -> None:
    """Nothing at all."""


def echo(block: bytes) -> bytes:
    """Its argument."""
    return block


def forever() -> None:
    """Does not return."""
    while True:
        sleep(3600)


lane_noop = task_token_guard("bench.lane.noop", lane="process")(noop)
lane_burn = task_token_guard("bench.lane.burn", lane="process")(burn)
lane_echo = task_token_guard("bench.lane.echo", lane="process")(echo)
lane_forever = task_token_guard("bench.lane.forever", lane="process")(forever)


def turns_for(seconds: float) -> int:
    """Turns of `burn` that take so long here when nothing else runs."""
    return max(1, int(iterations_per_second() * seconds))


def bare_worker(pipe: Connection) -> None:
    """A process with no library in between: so many calls of `burn` on request."""
    while True:
        order = pipe.recv()
        if order is None:
            return
        count, turns = order
        for _ in range(count):
            burn(turns)
        pipe.send(count)
