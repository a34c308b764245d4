"""`tokengate.topology()`: what it says, which source decided, and how many workers follow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import psutil
import pytest

import tokengate
from tokengate import Topology, machine, topology
from tokengate.machine import layout, snapshot


class System:
    """A faked machine of eight CPUs: four cores of two threads; 0 and 4 share one."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.monkeypatch = monkeypatch
        self.group = root / "sys/fs/cgroup/g"
        self.group.mkdir(parents=True)
        proc = root / "proc/self"
        proc.mkdir(parents=True)
        (proc / "cgroup").write_text("0::/g\n")
        mount = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
        (proc / "mountinfo").write_text(mount)
        for cpu in range(8):
            folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            (folder / "core_cpus_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
        monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
        self.affinity(*range(8))

    def affinity(self, *cpus: int) -> None:
        for module in (layout, snapshot):
            self.monkeypatch.setattr(module, "affinity", lambda: cpus)

    def cpuset(self, text: str) -> None:
        (self.group / "cpuset.cpus.effective").write_text(text + "\n")

    def quota(self, text: str) -> None:
        (self.group / "cpu.max").write_text(text + "\n")

    def look(self) -> Topology:
        return topology(root=self.root)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.delenv("TOKENGATE_CPUS", raising=False)
    return System(tmp_path, monkeypatch)


def test_nothing_narrows_the_machine(system: System) -> None:
    found = system.look()
    assert (found.count, found.capacity, found.source) == (8, 8.0, "machine")
    assert found.cpus == found.affinity == tuple(range(8))
    assert found.cores == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert (found.physical_cores, found.machine, found.smt) == (4, 8, True)
    assert (found.cpuset, found.quota, found.override) == (None, None, None)
    assert found.siblings(6) == (2, 6)


@pytest.mark.parametrize(
    ("text", "capacity", "count"),
    [
        ("150000 100000", 1.5, 2),  # rounded up: one worker would leave a third unused
        ("200000 100000", 2.0, 2),
        ("200001 100000", 2.00001, 3),
        ("1000 100000", 0.01, 1),
        ("799999 100000", 7.99999, 8),
    ],
)
def test_a_quota_decides(system: System, text: str, capacity: float, count: int) -> None:
    system.quota(text)
    found = system.look()
    assert (found.count, found.capacity, found.source) == (count, pytest.approx(capacity), "quota")
    assert found.quota == pytest.approx(capacity)
    assert found.cpus == tuple(range(8))  # it takes time, not CPUs


@pytest.mark.parametrize("text", ["800000 100000", "1600000 100000", "max 100000"])
def test_a_quota_that_takes_nothing(system: System, text: str) -> None:
    system.quota(text)
    found = system.look()
    assert (found.count, found.capacity, found.source) == (8, 8.0, "machine")


def test_affinity_decides(system: System) -> None:
    system.affinity(1, 5, 6)
    found = system.look()
    assert (found.count, found.source, found.cpus) == (3, "affinity", (1, 5, 6))
    assert found.cores == ((1, 5), (6,))
    assert found.physical_cores == 2
    with pytest.raises(ValueError, match=r"CPU 2 is not one of those .*\(1, 5, 6\)"):
        found.siblings(2)


def test_a_cpuset_that_the_system_has_taken_off_the_affinity(system: System) -> None:
    system.affinity(0, 1)
    system.cpuset("0-1")
    found = system.look()
    assert (found.count, found.source, found.cpuset) == (2, "cpuset", (0, 1))


def test_a_cpuset_that_the_system_has_not_taken_off_the_affinity(system: System) -> None:
    system.cpuset("2-4")
    found = system.look()
    assert (found.count, found.source, found.cpus) == (3, "cpuset", (2, 3, 4))


def test_affinity_within_a_cpuset(system: System) -> None:
    system.affinity(2)
    system.cpuset("2-4")
    found = system.look()
    assert (found.count, found.source, found.cpus) == (1, "affinity", (2,))


def test_affinity_and_cpuset_that_contradict_each_other(system: System) -> None:
    system.affinity(0, 1)
    system.cpuset("6")
    assert system.look().cpus == (0, 1)  # what the scheduler goes by


def test_the_tightest_decides(system: System) -> None:
    system.affinity(0, 1, 2, 3)
    system.cpuset("0-5")
    system.quota("50000 100000")
    found = system.look()
    assert (found.count, found.source, found.cpus) == (1, "quota", (0, 1, 2, 3))
    assert not found.smt


@pytest.mark.parametrize(("text", "cpus"), [("3", (0, 1, 2)), ("4-5", (4, 5))])
def test_the_override_overrides(
    system: System, monkeypatch: pytest.MonkeyPatch, text: str, cpus: tuple[int, ...]
) -> None:
    system.quota("100000 100000")
    monkeypatch.setenv("TOKENGATE_CPUS", text)
    found = system.look()
    assert (found.count, found.source, found.cpus) == (len(cpus), "TOKENGATE_CPUS", cpus)
    assert (found.capacity, found.quota, found.override) == (float(len(cpus)), 1.0, text)


def test_an_override_that_cannot_be(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENGATE_CPUS", "9")
    with pytest.raises(ValueError, match=r"TOKENGATE_CPUS='9' asks for 9 CPUs"):
        system.look()


def test_it_is_a_snapshot(system: System) -> None:
    before = system.look()
    system.quota("100000 100000")
    assert (before.count, system.look().count) == (8, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.count = 3  # type: ignore[misc]


def test_ready_for_json(system: System) -> None:
    data = json.loads(json.dumps(system.look().as_dict()))
    assert data["count"] == 8
    assert data["cores"][1] == [1, 5]
    assert data["smt"] is True


def test_the_public_name_is_the_function() -> None:
    assert callable(tokengate.topology)
    found = tokengate.topology()
    assert isinstance(found, Topology)
    assert 1 <= found.count <= len(found.cpus) <= found.machine


# -- the count that is remembered for a second ---------------------------------------------------


def test_the_count_is_remembered_for_a_second(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    looks: list[int] = []

    def look() -> Topology:
        looks.append(1)
        return topology(root=system.root)

    monkeypatch.setattr(snapshot, "_last", (float("-inf"), "", 1))
    monkeypatch.setattr(snapshot, "monotonic", lambda: clock[0])
    monkeypatch.setattr(snapshot, "topology", look)
    assert machine.cpu_count() == 8
    system.quota("200000 100000")
    clock[0] += 0.9
    assert (machine.cpu_count(), len(looks)) == (8, 1)
    clock[0] += 0.2
    assert (machine.cpu_count(), len(looks)) == (2, 2)
    monkeypatch.setenv("TOKENGATE_CPUS", "5")  # at once: it is asked every time
    assert (machine.cpu_count(), len(looks)) == (5, 3)
