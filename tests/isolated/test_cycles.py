"""What comes and goes a thousand times leaves nothing behind; what idles costs nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript

# Far below what the smallest thing that could be left has: a coordinator's queues and figures take
# tens of kilobytes, an event loop and its link several. The allocator's own noise is below it.
BYTES_EACH = 1_500


@pytest.mark.parametrize(
    "cycle", ["coordinator", "closed_on_loop", "dropped", "run", "run_on_uvloop"]
)
def test_a_thousand_cycles_leave_nothing(run_script: RunScript, cycle: str) -> None:
    if cycle == "run_on_uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed", exc_type=ImportError)
    lines = dict(line.rsplit(" ", 1) for line in run_script("cycles.py", cycle).succeeded().lines)
    assert (lines["descriptors"], lines["threads"]) == ("0", "0")
    assert int(lines["bytes each"]) < BYTES_EACH


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_workers_sleep(run_script: RunScript) -> None:
    lines = dict(line.split() for line in run_script("idle.py").succeeded().lines)
    # a thread that polled, even once a second, would show 64 of each
    assert int(lines["switches"]) <= 2
    assert int(lines["ticks"]) == 0
