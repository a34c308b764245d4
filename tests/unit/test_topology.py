"""tokengate.topology: usable CPUs, physical cores, worker placement and pinning."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tokengate import machine
from tokengate.machine import layout

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")


@pytest.fixture(autouse=True)
def _no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENGATE_CPUS", raising=False)
    monkeypatch.delenv("TOKENGATE_THREAD_WORKERS", raising=False)


def faked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: dict[int, str], file: str
) -> Path:
    """A faked system whose CPU ids are the keys; `siblings` is what its topology file says."""
    for cpu, text in siblings.items():
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / file).write_text(text + "\n")
    monkeypatch.setattr(layout, "affinity", lambda: tuple(sorted(siblings)))
    return tmp_path


@pytest.fixture
def smt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of two threads each, numbered as most x86 machines do: 0 and 4 share a core."""
    pairs = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}
    return faked(tmp_path, monkeypatch, pairs, "core_cpus_list")


@linux_only
def test_usable_cpus_are_the_main_threads_affinity_even_on_a_pinned_thread() -> None:
    expected = tuple(sorted(os.sched_getaffinity(os.getpid())))
    seen: list[tuple[int, ...]] = []

    def pinned() -> None:
        machine.pin_current_thread(expected[0])
        seen.append(machine.usable_cpus())

    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    assert seen == [expected]
    assert machine.usable_cpus() == expected


def test_usable_cpus_agree_with_psutil() -> None:
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        assert len(machine.usable_cpus()) == os.cpu_count()
    else:
        assert machine.usable_cpus() == tuple(sorted(process.cpu_affinity()))


def test_affinity_on_a_system_that_is_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    class Windows:
        def cpu_affinity(self) -> list[int]:
            return [3, 1]

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil, "Process", Windows)
    assert layout.affinity() == (1, 3)


@pytest.mark.parametrize("count", [1, 6, None])
def test_affinity_where_there_is_none(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(psutil, "Process", object)
    monkeypatch.setattr(os, "process_cpu_count", lambda: count, raising=False)
    assert layout.affinity() == tuple(range(count or 1))


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("  ", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("8", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("1", (0,)),
        ("3", (0, 1, 2)),
        ("5", (0, 1, 2, 3, 4)),
        ("3-3", (3,)),
        ("0,2-5", (0, 2, 3, 4, 5)),
        (" 7 , 1 - 2 ", (1, 2, 7)),
        ("1,1,0-1", (0, 1)),
    ],
)
def test_cpus_override(
    smt: Path, monkeypatch: pytest.MonkeyPatch, text: str, cpus: tuple[int, ...]
) -> None:
    monkeypatch.setenv("TOKENGATE_CPUS", text)
    assert machine.usable_cpus(root=smt) == cpus


def test_cpus_override_by_count_takes_distinct_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = faked(tmp_path, monkeypatch, {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, "core_cpus_list")
    monkeypatch.setenv("TOKENGATE_CPUS", "2")
    assert machine.usable_cpus(root=root) == (0, 2)
    assert machine.physical_cores(root=root) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "asks for 0 CPUs; this process may use 1 to 8 "),
        ("9", "asks for 9 CPUs; this process may use 1 to 8 "),
        ("999999999999", "'999999999999' is not a CPU id"),
        ("-1", "'-1' is not a CPU id"),
        ("all", "'all' is not a CPU id"),
        ("1.5", "'1.5' is not a CPU id"),
        ("1,,2", "'' is not a CPU id"),
        ("1,", "'' is not a CPU id"),
        ("2-", "'2-' is not a CPU id"),
        ("1-2-3", "'1-2-3' is not a CPU id"),
        ("3-1", "'3-1' is not an ascending range"),
        ("0-99999999", "'0-99999999' is not an ascending range"),
        ("\u0664", "'\u0664' is not a CPU id"),
        ("0,6-9,12", r"names CPUs 8-9,12, .* may not use \(it may use 0-7\)"),
    ],
)
def test_cpus_override_that_cannot_be(
    smt: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("TOKENGATE_CPUS", text)
    with pytest.raises(ValueError, match=r"^TOKENGATE_CPUS=.*" + message):
        machine.usable_cpus(root=smt)


def test_siblings_share_a_core(smt: Path) -> None:
    assert machine.core_groups(root=smt) == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert machine.physical_cores(root=smt) == 4
    assert machine.spread_cpus(root=smt) == (0, 1, 2, 3, 4, 5, 6, 7)


def test_workers_go_to_distinct_cores_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on hybrid machines: two cores of two threads, two of one. The old name of the file.
    siblings = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5"}
    root = faked(tmp_path, monkeypatch, siblings, "thread_siblings_list")
    placed = [machine.core_for_worker(index, root=root) for index in range(8)]
    assert placed == [0, 2, 4, 5, 1, 3, 0, 2]
    assert machine.physical_cores(root=root) == 4


def test_only_usable_siblings_count(smt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENGATE_CPUS", "2,4-6")
    assert machine.core_groups(root=smt) == ((2, 6), (4,), (5,))
    assert machine.spread_cpus(root=smt) == (2, 4, 5, 6)
    assert machine.physical_cores(root=smt) == 3


@pytest.mark.parametrize("text", ["", "garbage", "0-"])
def test_unreadable_topology_means_a_core_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    root = faked(tmp_path, monkeypatch, {0: text, 1: text}, "core_cpus_list")
    assert machine.core_groups(root=root) == ((0,), (1,))


@pytest.mark.parametrize(("reported", "expected"), [(2, 2), (None, 4), (16, 4)])
def test_physical_cores_without_sibling_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: int | None, expected: int
) -> None:
    monkeypatch.setattr(layout, "affinity", lambda: (0, 1, 2, 3))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 99 if logical else reported)
    assert machine.physical_cores(root=tmp_path) == expected
    assert machine.spread_cpus(root=tmp_path) == (0, 1, 2, 3)


def test_this_machine_is_consistent() -> None:
    usable = machine.usable_cpus()
    assert usable
    assert sorted(machine.spread_cpus()) == list(usable)
    assert 1 <= machine.physical_cores() <= len(usable)
    assert {machine.core_for_worker(i) for i in range(len(usable))} == set(usable)


def test_negative_worker_index() -> None:
    with pytest.raises(ValueError, match="not negative, got -1"):
        machine.core_for_worker(-1)


def test_default_thread_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.default_thread_workers() == 64
    monkeypatch.setenv("TOKENGATE_THREAD_WORKERS", " 3 ")
    assert machine.default_thread_workers() == 3
    monkeypatch.setenv("TOKENGATE_THREAD_WORKERS", "4096")
    assert machine.default_thread_workers() == 4096


@pytest.mark.parametrize("text", ["0", "-2", "4097", "many", "2.0", "1" * 5000])
def test_thread_workers_override_that_cannot_be(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TOKENGATE_THREAD_WORKERS", text)
    with pytest.raises(ValueError, match=r"TOKENGATE_THREAD_WORKERS=.* from 1 to 4096"):
        machine.default_thread_workers()


@linux_only
def test_pinning_pins_the_calling_thread_alone() -> None:
    before = os.sched_getaffinity(0)
    seen: dict[int, tuple[frozenset[int], str]] = {}

    def pin(cpu: int) -> None:
        read_back = machine.pin_current_thread(cpu)
        status = Path("/proc/thread-self/status").read_text()
        (line,) = [x for x in status.splitlines() if x.startswith("Cpus_allowed_list:")]
        seen[cpu] = read_back, line.split()[1]

    for cpu in machine.usable_cpus():
        thread = threading.Thread(target=pin, args=(cpu,))
        thread.start()
        thread.join()
    assert seen == {cpu: (frozenset({cpu}), str(cpu)) for cpu in machine.usable_cpus()}
    assert os.sched_getaffinity(0) == before


@linux_only
@pytest.mark.parametrize("cpu", [-1, 60_000, 2**70])
def test_pinning_to_a_cpu_that_is_not_there(cpu: int) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(machine.PinningError, match=f"refused to pin this thread to CPU {cpu}"):
        machine.pin_current_thread(cpu)
    assert os.sched_getaffinity(0) == before


def test_pinning_elsewhere_says_that_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(machine.PinningError, match="cannot be pinned to a CPU on darwin"):
        machine.pin_current_thread(0)


PROCESS = """
import os, threading
from tokengate.machine import pin_current_process
before = sorted(os.sched_getaffinity(0))
stay = threading.Event()
threading.Thread(target=stay.wait, daemon=True).start()
told = pin_current_process(before[-1])
seen = {frozenset(os.sched_getaffinity(int(each))) for each in os.listdir("/proc/self/task")}
assert len(os.listdir("/proc/self/task")) > 1
assert seen == {told} == {frozenset([before[-1]])}, (seen, told)
"""


@linux_only
def test_a_worker_process_is_pinned_with_every_thread_it_has() -> None:
    package = str(Path(machine.__file__).parents[2])
    subprocess.run(
        [sys.executable, "-P", "-c", PROCESS],
        env={**os.environ, "PYTHONPATH": package},
        timeout=100,
        check=True,
    )


@linux_only
def test_pinning_that_is_not_what_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)  # as in some sandboxes
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    with pytest.raises(machine.PinningError, match=r"pinned to CPU 1, but .* \[0, 1, 2\]"):
        machine.pin_current_thread(1)
