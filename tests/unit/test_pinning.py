"""Workers bound to cores are really bound, as the system itself tells from inside a function."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, LaneUnavailable, machine

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator

TIMEOUT = 20.0

if sys.platform != "linux":
    pytest.skip("threads can be pinned on Linux only", allow_module_level=True)


def cpus_here() -> set[int]:
    """The CPUs the calling thread may run on."""
    return set(os.sched_getaffinity(0))


def cpus_of_workers(coordinator: Coordinator, workers: int) -> list[set[int]]:
    """The same of that many workers at once."""
    together = threading.Barrier(workers)

    def look() -> set[int]:
        together.wait(TIMEOUT)
        return cpus_here()

    tokens = [coordinator.submit(look) for _ in range(workers)]
    return [token.result(TIMEOUT) for token in tokens]


def test_each_worker_is_pinned_to_one_cpu(new_coordinator: NewCoordinator) -> None:
    usable = cpus_here()
    coordinator = new_coordinator(pin="core", thread_workers=4)
    seen = cpus_of_workers(coordinator, 4)
    assert [len(cpus) for cpus in seen] == [1] * 4
    used = set.union(*seen)
    assert used <= usable
    assert len(used) == min(4, len(usable))  # spread, not heaped on one
    assert cpus_here() == usable  # the caller's thread is its own


def test_workers_take_cores_before_their_siblings(new_coordinator: NewCoordinator) -> None:
    cores = machine.core_groups()
    coordinator = new_coordinator(pin="core", thread_workers=len(cores))
    used = set.union(*cpus_of_workers(coordinator, len(cores)))
    assert [len(used & set(core)) for core in cores] == [1] * len(cores)


@pytest.mark.parametrize("settings", [{}, {"pin": "auto"}, {"pin": "none"}], ids=str)
def test_without_pinning_workers_run_anywhere(
    new_coordinator: NewCoordinator, settings: dict[str, Any]
) -> None:
    usable = cpus_here()
    coordinator = new_coordinator(thread_workers=3, **settings)
    assert cpus_of_workers(coordinator, 3) == [usable] * 3


def test_workers_started_later_are_pinned_too(new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator(pin="core", thread_workers=1)
    assert [len(cpus) for cpus in cpus_of_workers(coordinator, 1)] == [1]
    coordinator.resize("thread", 3)
    assert [len(cpus) for cpus in cpus_of_workers(coordinator, 3)] == [1] * 3
    coordinator.stop()
    coordinator.start()
    assert [len(cpus) for cpus in cpus_of_workers(coordinator, 3)] == [1] * 3


def test_started_by_a_pinned_worker(new_coordinator: NewCoordinator) -> None:
    """A thread inherits the affinity of the one that starts it: here that would be one CPU."""
    outer = new_coordinator(pin="core", thread_workers=1)
    inner = new_coordinator(pin="core", thread_workers=2)
    used = set.union(*outer.submit(cpus_of_workers, inner, 2).result(TIMEOUT))
    assert len(used) == min(2, len(cpus_here()))


def test_only_the_cpus_that_were_asked_for(
    new_coordinator: NewCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = max(cpus_here())
    monkeypatch.setenv("TOKENGATE_CPUS", f"{last}-{last}")  # one number alone would be a count
    coordinator = new_coordinator(pin="core", thread_workers=2)
    assert cpus_of_workers(coordinator, 2) == [{last}] * 2


def test_a_wrong_choice_of_cpus_is_named_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKENGATE_CPUS", "many")
    with pytest.raises(ValueError, match=r"TOKENGATE_CPUS='many'"):
        Coordinator(pin="core")


def test_the_system_refuses_to_pin(
    new_coordinator: NewCoordinator,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[logging.LogRecord],
) -> None:
    """Where a CPU has been taken away meanwhile the work is done all the same, and a log tells."""
    coordinator = new_coordinator(pin="core", thread_workers=1)

    def refuse(*_: Any) -> None:
        raise OSError("the CPU has been taken away")

    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_setaffinity", refuse)
        tokens = [coordinator.submit(cpus_here) for _ in range(10)]
        assert [token.result(TIMEOUT) for token in tokens] == [cpus_here()] * 10
    coordinator.stop()
    [record] = logged
    assert record.exc_info is not None
    assert "the CPU has been taken away" in str(record.exc_info[1])
    logged.clear()


def test_where_threads_cannot_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LaneUnavailable, match=r"pin='core'.*darwin"):
        Coordinator(pin="core")
    Coordinator(pin="auto")
    Coordinator(pin="none")


@pytest.mark.parametrize("wrong", ["cores", "CORE", "", None, True, 1])
def test_a_wrong_pin_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="'auto', 'core' or 'none'") as caught:
        Coordinator(pin=wrong)
    assert f"pin={wrong!r}" in str(caught.value)
