"""A coordinator follows the CPUs it may use while it runs: its keeper looks whether they changed."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pytest

from tokengate import Topology, machine, topology

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator

TIMEOUT = 60.0


class Counter:
    """Stands in for `machine.topology`: tells what a file says, and that it was asked again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked = threading.Semaphore(0)
        self.seen: list[tuple[int, str]] = []

    def __call__(self) -> Topology:
        count = int(self.file.read_text())
        self.seen.append((count, threading.current_thread().name))
        self.asked.release()
        return dataclasses.replace(topology(), count=count)

    def wait(self) -> None:
        assert self.asked.acquire(timeout=TIMEOUT), "the CPUs were not counted"


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter:
    file = tmp_path / "cpu.max"
    file.write_text("7")
    found = Counter(file)
    monkeypatch.setattr(machine, "watched_files", lambda: [os.fsencode(file)])
    monkeypatch.setattr(machine, "topology", found)
    return found


def wait_until(reached: Callable[[], bool]) -> None:
    """The count has been read; that it was passed on follows on the keeper's thread."""
    deadline = monotonic() + TIMEOUT
    while not reached():
        assert monotonic() < deadline
        sleep(0.001)


def spin(until: threading.Event) -> None:
    """Pure Python, so that the keeper stays awake."""
    while not until.is_set():
        sum(range(2_000))


def test_a_quota_that_changes_under_load(new_coordinator: NewCoordinator, counter: Counter) -> None:
    coordinator = new_coordinator(name="follower", thread_workers=4)
    counter.wait()
    done = threading.Event()
    tokens = [coordinator.submit(spin, done) for _ in range(8)]
    try:
        assert coordinator._cpus == 7
        counter.file.write_text("3")
        counter.wait()
        wait_until(lambda: coordinator._cpus == 3)
        counter.file.write_text("5")
        counter.wait()
        wait_until(lambda: coordinator._cpus == 5)
    finally:
        done.set()
    for token in tokens:
        token.result(TIMEOUT)
    assert [count for count, _ in counter.seen] == [7, 3, 5]
    assert [name for _, name in counter.seen[1:]] == ["follower-keeper"] * 2


def test_a_change_while_idle_is_seen_when_work_comes(
    new_coordinator: NewCoordinator, counter: Counter
) -> None:
    coordinator = new_coordinator(name="idler", thread_workers=4)
    counter.wait()
    counter.file.write_text("2")  # no keeper yet: nobody looks, and nobody needs to
    done = threading.Event()
    tokens = [coordinator.submit(spin, done) for _ in range(8)]
    try:
        counter.wait()
    finally:
        done.set()
    for token in tokens:
        token.result(TIMEOUT)
    assert counter.seen[-1] == (2, "idler-keeper")


def test_an_override_that_can_no_longer_be(
    new_coordinator: NewCoordinator,
    counter: Counter,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[logging.LogRecord],
) -> None:
    coordinator = new_coordinator(thread_workers=4)
    asked = threading.Semaphore(0)

    def refuse() -> Topology:
        asked.release()
        raise ValueError("TOKENGATE_CPUS='7' asks for 7 CPUs")

    monkeypatch.setattr(machine, "topology", refuse)
    counter.file.write_text("1")
    done = threading.Event()
    tokens = [coordinator.submit(spin, done) for _ in range(8)]
    try:
        assert asked.acquire(timeout=TIMEOUT)
    finally:
        done.set()
    for token in tokens:
        token.result(TIMEOUT)
    coordinator.stop()
    assert coordinator._cpus == 7
    [record] = logged
    assert "as many CPUs as before: TOKENGATE_CPUS='7'" in record.getMessage()
    logged.clear()


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is changed on Linux only")
def test_affinity_that_changes_under_load(
    new_coordinator: NewCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real: the process is bound to one CPU and let go again."""
    before = os.sched_getaffinity(os.getpid())
    if len(before) < 2:
        pytest.skip("one CPU: nothing to take away")
    counts: list[int] = []
    counted = threading.Semaphore(0)
    look = machine.topology

    def watch() -> Topology:
        found = look()
        counts.append(found.count)
        counted.release()
        return found

    monkeypatch.setattr(machine, "topology", watch)
    coordinator = new_coordinator(thread_workers=4)
    assert counted.acquire(timeout=TIMEOUT)
    done = threading.Event()
    tokens = [coordinator.submit(spin, done) for _ in range(8)]
    try:
        os.sched_setaffinity(os.getpid(), {min(before)})
        assert counted.acquire(timeout=TIMEOUT)
        os.sched_setaffinity(os.getpid(), before)
        assert counted.acquire(timeout=TIMEOUT)
    finally:
        os.sched_setaffinity(os.getpid(), before)
        done.set()
    for token in tokens:
        token.result(TIMEOUT)
    assert counts[1] == 1
    assert counts[2] == counts[0]
