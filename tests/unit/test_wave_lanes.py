import subprocess
import sys
import time

import pytest

from tokengate import Coordinator, LaneUnavailable, use
from tokengate.lanes.availability import lane_report
from tokengate.wave.children import children_cpu_seconds
from tokengate.wave.lanes import coordinator_for, describe_workers, on_lane
from tokengate.wave.tasks import REFERENCE_TASKS

AVAILABLE = [report.lane for report in lane_report() if report.available]


@pytest.mark.parametrize("lane", AVAILABLE)
async def test_the_tasks_run_on_the_lane_that_was_chosen(lane: str) -> None:
    coordinator = coordinator_for(lane, 1, name="chosen")
    async with coordinator:
        with use(coordinator):
            for task in on_lane(REFERENCE_TASKS, lane):
                assert await task.submit(*task.arguments(7)) == task.plain(*task.arguments(7))
        stats = coordinator.stats()
        lanes = {name: each.max_workers for name, each in stats.lanes.items() if each.workers}
        assert lanes == {lane: 1}
        assert describe_workers(stats, lane).startswith(
            f"{lane} lane, 1 workers started of at most 1"
        )


def test_a_lane_that_has_not_run_has_no_workers() -> None:
    with Coordinator(name="idle") as coordinator:
        assert (
            describe_workers(coordinator.stats(), "process") == "process lane, no workers started"
        )


async def test_a_lane_that_chooses_tells_what_it_chose_and_has_no_workers_of_its_own() -> None:
    with pytest.raises(ValueError, match="--workers 2: lane 'auto' has no workers of its own"):
        coordinator_for("auto", 2, name="chosen")
    coordinator = coordinator_for("auto", None, name="chosen")
    async with coordinator:
        with use(coordinator):
            [task, *_] = on_lane(REFERENCE_TASKS, "auto")
            assert await task.submit(*task.arguments(7)) == task.plain(*task.arguments(7))
        told = describe_workers(coordinator.stats(), "auto")
    assert told.startswith("lane auto; thread lane, 1 workers started of at most")


def test_a_lane_that_is_none_is_refused() -> None:
    with pytest.raises(LaneUnavailable, match="lane='tape'"):
        on_lane(REFERENCE_TASKS, "tape")


BURN = """
import sys, time
while time.process_time() < 0.2:
    pass
print(flush=True)
sys.stdin.read()
"""


def test_the_cpu_time_of_child_processes_counts() -> None:
    before, own = children_cpu_seconds(), time.process_time()
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = children_cpu_seconds() - before
        spent = time.process_time() - own
        child.communicate()
    assert during >= 0.15
    assert spent < 0.15  # it was the child
