"""Run by test_process_limits.py, in a process that may use little: what the lanes make of it, as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import lane_functions as work

import tokengate
from tokengate.lanes.availability import lane_report


async def cpus() -> dict[str, object]:
    """Ten calls at a time in every lane that works here, and what the coordinator says of them."""
    found: dict[str, object] = {"count": tokengate.topology().count}
    async with tokengate.Coordinator(stop_timeout=20.0) as coordinator:
        with tokengate.use(coordinator):
            for report in lane_report():
                if report.lane in ("thread", "process", "interpreter") and report.available:
                    add = work.add.options(lane=report.lane)
                    results = await asyncio.gather(*[add(i, 1) for i in range(10)])
                    assert results == list(range(1, 11))
                    found[report.lane] = coordinator.stats().lanes[report.lane].max_workers
            spins = work.spin_for.options(lane="process")
            assert await asyncio.gather(*[spins(0.05) for _ in range(6)]) == [None] * 6
    return found


async def memory() -> dict[str, object]:
    """One call that takes more than there is, beside others; then one more."""
    async with tokengate.Coordinator(process_workers=1, stop_timeout=20.0) as coordinator:
        with tokengate.use(coordinator):
            assert await work.add(1, 1) == 2
            glutton = work.eat(2_000)
            others = [work.add(i, 1) for i in range(10)]
            try:
                await glutton
                told = "nothing"
            except tokengate.WorkerDied as error:
                told = str(error)
            assert await asyncio.gather(*others) == list(range(1, 11))
    return {"told": told}


if __name__ == "__main__":
    for group in sys.argv[2:]:
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            file.write(str(os.getpid()))
    json.dump(asyncio.run({"cpus": cpus, "memory": memory}[sys.argv[1]]()), sys.stdout)
