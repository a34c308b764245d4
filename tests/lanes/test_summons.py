"""Whom a carrier summons from the pool is woken, though it claims nothing itself."""

from __future__ import annotations

import asyncio

import lane_functions as work
from test_process import until

from tokengate.lanes.remote import RemoteWorker
from tokengate.lanes.wire import encode


async def test_a_carrier_leaves_a_token_to_an_idle_one(lanes, tmp_path, monkeypatch):
    """It had been sent ahead, and was taken back meanwhile: nobody has been told of it yet."""
    await work.add(1)
    lane = lanes._lanes["process"]
    monkeypatch.setattr(RemoteWorker, "_look", lambda _: None)  # takes nothing back by itself
    gates = [tmp_path / "gate0", tmp_path / "gate1"]
    holding = [work.hold(str(tmp_path / f"s{i}"), str(gate)) for i, gate in enumerate(gates)]
    await until(lambda: all((tmp_path / f"s{i}").exists() for i in range(2)))
    busy = next(each for each in lane.threads.workers if holding[0] in each.tokens)
    token = work.add(1, 1)
    with busy.drive:
        frame = busy._gather()
        assert frame is not None  # both are busy: it is sent ahead
        busy._backlog.append(encode(frame, None))
    gates[1].touch()
    await holding[1]
    await until(lambda: lanes.stats().lanes["process"].active == 1)
    lane._recall()
    with busy.drive:
        assert busy._gather() is None
    assert await asyncio.wait_for(token, 10) == 2
    gates[0].touch()
    await holding[0]
    assert await asyncio.wait_for(work.add(2, 2), 10) == 4
