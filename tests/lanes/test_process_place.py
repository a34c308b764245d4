"""Where worker processes run, and how many threads of numeric libraries each may have."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import lane_functions as work
import pytest

from tokengate import topology, use


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_workers_times_blas_threads_stay_within_the_cpus(
    new_coordinator: Any, workers: int
) -> None:
    cpus = topology().count
    with use(new_coordinator(process_workers=workers, stop_timeout=20.0)):
        budget, _ = work.surroundings().result(60)
    assert budget == max(1, cpus // workers)


def test_a_smaller_wish_is_kept(new_coordinator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    with use(new_coordinator(process_workers=1, stop_timeout=20.0)):
        assert work.surroundings().result(60)[0] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds to a CPU")
@pytest.mark.parametrize("pin", ["core", "none", "auto"])
async def test_pin(new_coordinator: Any, pin: str) -> None:
    usable = os.sched_getaffinity(0)
    with use(new_coordinator(process_workers=2, pin=pin, stop_timeout=20.0)):
        found = await asyncio.gather(*[work.surroundings() for _ in range(20)])
    for _, cpus in found:
        assert cpus <= usable
        assert (len(cpus) == 1) if pin == "core" else (cpus == usable)
