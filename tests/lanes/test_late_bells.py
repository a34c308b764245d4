"""A carrier wakes loops a little later, but before anything that takes time, or ends it."""

import asyncio
import threading

import lane_functions as work
import pytest

from tokengate import TokenState


async def test_a_carrier_that_leaves_tells_what_it_has_finished(lanes, tmp_path):
    gate = tmp_path / "gate"
    tokens = [work.hold(str(tmp_path / f"s{i}"), str(gate)) for i in range(2)]
    while not all((tmp_path / f"s{i}").exists() for i in range(2)):
        await asyncio.sleep(0.005)
    lanes.resize("process", 1)
    waiting = [asyncio.ensure_future(token) for token in tokens]
    await asyncio.sleep(0)
    threading.Timer(0.1, gate.touch).start()  # nothing else may wake this loop
    assert len(set(await asyncio.wait_for(asyncio.gather(*waiting), 20))) == 2
    assert await asyncio.wait_for(work.on_a_thread(), 20)
    assert await asyncio.wait_for(work.add(1, 2), 20) == 3


@pytest.mark.parametrize("fails", [False, True])
async def test_before_a_result_is_unpickled_that_runs_code(lanes, fails):
    lanes.resize("process", 1)
    await work.waits_in_the_parent(False, False)
    work.heard.clear()
    plain = work.waits_in_the_parent(False, False)
    other = work.waits_in_the_parent(True, fails)

    async def hear():
        await plain
        work.heard.set()

    heard = asyncio.ensure_future(hear())
    (found,) = await asyncio.gather(other, return_exceptions=True)
    assert (found.args[0] if fails else found) is True
    await heard


async def test_a_worker_that_is_sent_much_is_heard_meanwhile(lanes, tmp_path):
    lanes.resize("process", 1)
    gate = tmp_path / "gate"
    for _ in range(5):
        await asyncio.gather(*[work.mostly_short(i, "", "") for i in range(500)])
    for count in (3, 50, 127, 128, 129, 200, 260):
        short = [work.mostly_short(i, "", "") for i in range(count)]
        slow = work.mostly_short(work.SLOW_ONE, str(tmp_path / "started"), str(gate))
        large = [work.echo(bytes(2_000_000)) for _ in range(3)]
        assert await asyncio.wait_for(asyncio.gather(*short), 20) == [None] * count
        assert slow.state is not TokenState.COMPLETED
        gate.touch()
        await slow
        await asyncio.gather(*large)
        gate.unlink()
