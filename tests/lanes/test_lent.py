"""Large buffers of the interpreter lane, which each side reads where they lie in the other's hands."""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest
from test_process import until

from tokengate import (
    Coordinator,
    CoordinatorStopped,
    TokenKilled,
    TokenState,
    WorkerDied,
)
from tokengate.lanes import remote
from tokengate.lanes.availability import check_interpreter
from tokengate.lanes.child import LENT, OUT_OF_BAND
from tokengate.lanes.loans import Loans
from tokengate.lanes.wire import read_reply

if not check_interpreter()[0]:
    pytest.skip(check_interpreter()[1], allow_module_level=True)

import interpreter_functions as work

SIZES = (OUT_OF_BAND - 1, OUT_OF_BAND, LENT - 1, LENT, LENT + 1, 5_000_001)
WORKERS = {"interpreter_workers": 2}  # of the fixture `lanes`


def free(array):
    """Whether nobody holds it: else it refuses to change its size."""
    try:
        array.append(0)
    except BufferError:
        return False
    return True


@pytest.mark.parametrize("kind", [bytes, bytearray])
async def test_each_size_comes_back_as_it_went(lanes, kind):
    block = os.urandom(max(SIZES))
    for size in SIZES:
        value = kind(block[:size])
        found = await work.echo(value)
        assert type(found) is kind
        assert found == value


async def test_of_several_sizes_at_once(lanes):
    blocks = [os.urandom(size) for size in SIZES]
    assert await work.echo(bytearray(blocks[-1])) == blocks[-1]
    found = await asyncio.gather(*[work.add([each], blocks) for each in blocks * 3])
    assert found == [[each, *blocks] for each in blocks * 3]


async def test_an_argument_is_let_go_of_once_it_has_been_read(lanes, tmp_path):
    lanes.resize("interpreter", 1)
    array = bytearray(2_000_000)
    assert await work.echo(array) == array
    await until(lambda: free(array))

    # of a call that never runs, too
    gate = tmp_path / "gate"
    holding = work.hold(str(tmp_path / "started"), str(gate))
    await until((tmp_path / "started").exists)
    token = work.echo(array)
    await asyncio.sleep(0.02)  # it is sent ahead meanwhile, or not: the same must be seen
    assert token.cancel()
    gate.touch()
    await holding
    del token
    await until(lambda: free(array))


async def test_a_worker_that_ends_lets_go_of_all(lanes, tmp_path):
    lanes.resize("interpreter", 1)
    await work.add(1)
    arrays = [bytearray(2_000_000) for _ in range(4)]
    spinning = work.spin()
    await until(lambda: spinning.state is TokenState.EXECUTING)
    tokens = [work.echo(each) for each in arrays]
    await asyncio.sleep(0.02)  # some may be sent ahead meanwhile, and lie unread in its pipe
    spinning.kill("enough")
    assert await asyncio.gather(*tokens) == arrays
    del tokens
    for each in arrays:
        await until(lambda each=each: free(each))


@pytest.mark.parametrize("seed", range(3))
async def test_ended_at_any_moment(lanes, seed):
    """What is lent to or by a worker that is stopped is never read after it was let go of."""
    chance = random.Random(seed)
    blocks = [os.urandom(chance.randrange(LENT, 4 * LENT)) for _ in range(8)]
    for _ in range(12):
        sent = [chance.choice(blocks) for _ in range(16)]
        tokens = [work.echo(bytearray(each)) for each in sent]
        for token in chance.sample(tokens, 6):
            await asyncio.sleep(chance.choice((0, 0.001, 0.003)))
            token.kill("enough") if chance.random() < 0.7 else token.cancel()
        found = await asyncio.gather(*tokens, return_exceptions=True)
        for block, value in zip(sent, found, strict=True):
            assert isinstance(value, BaseException) or value == block
        assert sum(isinstance(value, BaseException) for value in found) <= 6


async def test_a_result_is_held_until_it_has_been_read(lanes, monkeypatch):
    """Also by a worker that is told to end just then."""
    block = os.urandom(5_000_000)
    read = []
    await work.add(1)
    token = work.echo(block)

    def slow(*args):
        token.kill("enough")
        time.sleep(0.2)  # the worker has been interrupted by now, would it only return
        reply, rest = read_reply(*args)
        read.append(reply)
        return reply, rest

    monkeypatch.setattr(remote, "read_reply", slow)
    with pytest.raises(TokenKilled):
        await token
    await until(lambda: read)
    assert block in read[0][-1]
    monkeypatch.undo()
    assert await work.add(1, 1) == 2


def test_what_is_said_to_be_taken_after_all_was_let_go_of():
    """By a worker that has ended meanwhile: its carrier hears it later."""
    loans = Loans()
    array = bytearray(10)
    loans.lend([memoryview(array)])
    loans.over()
    assert free(array)
    loans.taken(1)
    loans.theirs.close()
    loans.close()


@pytest.mark.parametrize("size", [LENT - 1, LENT], ids=["sent", "lent"])
async def test_a_result_that_comes_too_late_keeps_no_worker(lanes, tmp_path, size):
    """Nobody reads it: neither its carrier nor its worker may wait for that."""
    lanes.resize("interpreter", 1)
    token = work.answer_all_the_same(str(tmp_path / "started"), 20, size)
    await until((tmp_path / "started").exists)
    token.kill("enough")
    with pytest.raises(TokenKilled):
        await token
    await until(lambda: not token.abandoned)
    assert await work.add(1, 1) == 2
    await until(lambda: lanes.stats().lanes["interpreter"].workers == 1)


async def test_a_result_that_cannot_be_read_is_let_go_of(lanes, monkeypatch):
    def broken(*_):
        raise OSError("as if the pipe had broken")

    monkeypatch.setattr(remote, "read_reply", broken)
    with pytest.raises(WorkerDied):
        await work.echo(bytes(LENT))
    monkeypatch.undo()
    assert await work.echo(bytes(LENT)) == bytes(LENT)


def test_a_coordinator_that_stops_meanwhile(capfd):
    block = os.urandom(1_000_000)
    for timeout in (20.0, 0.05, 0.0, 20.0):
        coordinator = Coordinator(interpreter_workers=2)
        echo = work.echo.options(coordinator=coordinator)
        assert echo(block).result(20) == block
        tokens = [echo(block) for _ in range(12)]
        coordinator.stop(timeout)
        ended = [token.exception(0) for token in tokens]
        assert timeout < 1 or not any(ended)
        for token, error in zip(tokens, ended, strict=True):
            assert isinstance(error, CoordinatorStopped) if error else token.result(0) == block
    capfd.readouterr()  # what was abandoned is told of there
