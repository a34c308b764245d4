"""`tokengate doctor`: what it finds, what it advises, what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tokengate
from tokengate import Coordinator, _core, topology
from tokengate.__main__ import main
from tokengate.doctor import examine as examining
from tokengate.doctor import findings, versions
from tokengate.doctor.examine import examine
from tokengate.doctor.findings import Finding
from tokengate.doctor.report import WIDTH, lines
from tokengate.lanes import availability
from tokengate.lanes.availability import lane_report
from tokengate.machine import Topology
from tokengate.machine.cgroups import Throttling

# The same package in subprocesses as here, wherever this one came from.
PACKAGE_ROOT = Path(tokengate.__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENGATE_CPUS", raising=False)


def cpus(**values: Any) -> Topology:
    """Four CPUs on two cores, with these differences."""
    plain: dict[str, Any] = {
        "count": 4,
        "capacity": 4.0,
        "source": "machine",
        "cpus": (0, 1, 2, 3),
        "cores": ((0, 2), (1, 3)),
        "physical_cores": 2,
        "machine": 4,
        "affinity": (0, 1, 2, 3),
        "cpuset": None,
        "quota": None,
        "override": None,
    }
    return Topology(**{**plain, **values})


def names(found: Iterable[Finding]) -> list[str]:
    return [finding.name for finding in found]


# -- findings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "throttled", "expected"),
    [
        ({}, None, []),
        ({"quota": 4.0}, Throttling(0, 0.0), []),
        ({"quota": 1.5, "count": 2}, None, ["quota-below-cpus"]),
        ({"quota": 1.5, "override": "4"}, None, ["override-above-quota"]),
        ({"quota": 1.5, "override": "1-1", "cpus": (1,), "count": 1}, None, ["one-cpu"]),
        ({"quota": 8.0}, Throttling(3, 0.25), ["throttled"]),
        ({"cpus": (0,), "affinity": (0,), "count": 1}, None, ["one-cpu"]),
        ({"cpus": (0, 1), "cpuset": (0, 1), "count": 2}, None, ["affinity-outside-cpuset"]),
    ],
)
def test_findings_about_cpus(
    values: dict[str, Any], throttled: Throttling | None, expected: list[str]
) -> None:
    assert names(findings.of_cpus(cpus(**values), throttled)) == expected


def test_a_quota_is_told_in_figures() -> None:
    [finding] = findings.of_cpus(cpus(quota=2.5, count=3), None)
    assert "gives 2.5 CPUs of time, but 4 CPUs can be seen" in finding.what
    assert "OMP_NUM_THREADS and the like to 2" in finding.advice


@pytest.mark.parametrize(
    ("free_threaded", "enabled", "switch", "expected"),
    [
        (False, True, 0.005, []),
        (True, False, 0.005, []),
        (True, True, 0.005, ["gil-switched-on"]),
        (False, True, 0.1, ["switch-interval-long"]),
        (False, True, 1e-5, ["switch-interval-short"]),
        (True, False, 0.1, []),  # without a GIL nobody waits for it
    ],
)
def test_findings_about_the_gil(
    free_threaded: bool, enabled: bool, switch: float, expected: list[str]
) -> None:
    assert names(findings.of_gil(free_threaded, enabled, switch)) == expected


def test_who_switched_the_gil_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_GIL", "1")
    [finding] = findings.of_gil(True, True, 0.005)
    assert "by PYTHON_GIL=1" in finding.what
    assert finding.advice == "Take PYTHON_GIL away."
    monkeypatch.delenv("PYTHON_GIL")
    [finding] = findings.of_gil(True, True, 0.005)
    assert "doctor --import NAME" in finding.advice


@pytest.mark.parametrize(
    ("free_threaded", "packages", "expected"),
    [
        (True, {"uvloop": "0.22.1"}, ["uvloop-old"]),
        (True, {"uvloop": "0.23.0"}, []),
        (True, {"uvloop": "0.9"}, ["uvloop-old"]),
        (True, {"uvloop": None}, []),
        (True, {"uvloop": "unknown"}, []),
        (False, {"uvloop": "0.19.0"}, []),
        (False, {"numpy": "2.0", "threadpoolctl": None}, ["no-threadpoolctl"]),
        (False, {"numpy": "2.0", "threadpoolctl": "3.5"}, []),
    ],
)
def test_findings_about_packages(
    free_threaded: bool, packages: dict[str, str | None], expected: list[str]
) -> None:
    assert names(findings.of_neighbours(free_threaded, packages)) == expected


@pytest.mark.parametrize(
    ("limits", "privileged", "expected"),
    [
        ({"nofile": 256, "nproc": 100}, False, ["few-files", "few-processes"]),
        ({"nofile": 1024, "nproc": 256}, False, []),
        ({"nofile": None, "nproc": None}, False, []),
        ({"nofile": 1024, "nproc": 100}, True, []),  # root is not bound by it
        ({}, False, []),
    ],
)
def test_findings_about_limits(
    limits: dict[str, int | None], privileged: bool, expected: list[str]
) -> None:
    assert names(findings.of_limits(limits, privileged)) == expected


# -- the examination -------------------------------------------------------------------------------


def test_this_machine_is_seen_as_topology_sees_it() -> None:
    found = examine()
    assert found.cpus == topology()
    assert found.counts["os.cpu_count()"] == os.cpu_count()
    assert found.python["version"].split(".")[:2] == list(map(str, sys.version_info[:2]))
    assert found.packages["psutil"]
    assert found.tokengate == {"version": tokengate.__version__, **_core.build_info()}
    assert found.gil["switch_interval"] == sys.getswitchinterval()
    assert [report.lane for report in found.lanes] == ["thread", "process", "interpreter"]


def test_what_the_core_was_built_with() -> None:
    info = _core.build_info()
    assert set(info) == {"cython", "compiler", "build"}
    assert not versions.is_older(info["cython"], (3, 3))


def test_a_wrong_override_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENGATE_CPUS", "many")
    found = examine()
    assert found.cpus is None
    assert not found.healthy
    assert found.findings[0].name == "override-wrong"
    assert "TOKENGATE_CPUS='many'" in found.findings[0].what
    assert "\n  TOKENGATE_CPUS " in "\n".join(lines(found))


def test_a_lane_that_does_not_run_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Coordinator, "submit", refuse)
    found = examine()
    assert not found.healthy
    assert found.findings[0].name == "thread-lane-broken"
    assert "can't start new thread" in found.findings[0].what


@pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")
def test_pinning_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    assert examine().pinning.startswith("works on all ")
    assert os.sched_getaffinity(0) == before

    def refuse(*_: Any) -> None:
        raise OSError("forbidden in this sandbox")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert "forbidden in this sandbox" in examine().pinning


def test_modules_are_imported_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "doctor_fine.py").write_text("")
    (tmp_path / "doctor_leaves.py").write_text("raise SystemExit('no display')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = examine(["doctor_fine", "doctor_leaves", "doctor_nowhere"])
    assert found.imported["doctor_fine"] == "ok"
    assert found.imported["doctor_leaves"] == "failed: SystemExit: no display"
    assert "No module named 'doctor_nowhere'" in found.imported["doctor_nowhere"]
    assert names(found.findings)[:2] == ["import-failed"] * 2


def test_a_module_that_switches_the_gil_on(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [False, True]
    monkeypatch.setattr(examining, "gil_enabled", lambda: states.pop(0))
    monkeypatch.setitem(sys.modules, "doctor_greedy", ModuleType("doctor_greedy"))
    found: list[Finding] = []
    assert examining._import("doctor_greedy", True, found) == "switched the GIL on"
    [finding] = found
    assert finding.name == "import-switched-gil-on"
    assert "doctor_greedy" in finding.what


# -- lanes -----------------------------------------------------------------------------------------


def test_the_thread_lane_is_always_there() -> None:
    report = lane_report()[0]
    assert (report.lane, report.available) == ("thread", True)


@pytest.mark.parametrize(
    ("version", "module", "free_threaded", "available", "why"),
    [
        ((3, 11, 0), object(), 0, False, "needs CPython 3.14 or newer, this is 3.11"),
        ((3, 14, 0), None, 0, False, "built without concurrent.interpreters"),
        ((3, 14, 0), object(), 1, False, "free-threaded"),
        ((3, 14, 0), object(), 0, True, "in parallel"),
    ],
)
def test_the_interpreter_lane(
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int, int],
    module: object,
    free_threaded: int,
    available: bool,
    why: str,
) -> None:
    class Version(tuple[int, ...]):
        major, minor = version[:2]

    monkeypatch.setattr(sys, "version_info", Version(version))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: module)
    monkeypatch.setattr("sysconfig.get_config_var", lambda _: free_threaded)
    found, told = availability.check_interpreter()
    assert found == available
    assert why in told


def test_lanes_that_are_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_exists", lambda _: True)
    assert availability._process()[0]
    monkeypatch.setattr(availability, "_exists", lambda _: False)
    assert availability._process() == (False, "this version of TokenGate does not have it")


# -- what is printed -------------------------------------------------------------------------------


def test_the_report_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    told = cpus(quota=1.5, count=2, capacity=1.5, source="quota")
    monkeypatch.setattr(examining, "topology", lambda root: told)
    monkeypatch.setattr(examining, "throttling", lambda root: Throttling(7, 1.25))
    report = list(lines(examine()))
    text = "\n".join(report)
    assert "quota" in text
    assert "2 (decided by: quota; exactly 1.5)" in text
    assert "1.2 s in 7 periods so far" in text
    assert "2; siblings share one: 0,2, 1,3" in text
    assert "WARNING: The quota gives 1.5 CPUs of time" in text
    assert report[-1].startswith("0 errors, ")
    tail = report[next(i for i, line in enumerate(report) if line.startswith("WARNING")) :]
    assert all(len(line) <= WIDTH for line in tail)


def test_nothing_to_complain_about(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("of_cpus", "of_gil", "of_limits", "of_neighbours"):
        monkeypatch.setattr(examining, name, lambda *_: [])
    assert list(lines(examine()))[-1] == "Nothing to complain about."


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    data = json.loads(capsys.readouterr().out)
    assert status == (0 if data["healthy"] else 1)
    assert data["cpus"]["count"] == topology().count
    assert data["lanes"][0]["lane"] == "thread"
    assert set(data) >= {"python", "tokengate", "packages", "gil", "limits", "findings", "counts"}


@pytest.mark.parametrize(
    ("levels", "strict", "status"),
    [
        ([], False, 0),
        ([], True, 0),
        (["warning"], False, 0),
        (["warning"], True, 1),
        (["error"], False, 1),
        (["error", "warning"], True, 1),
    ],
)
def test_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    levels: list[findings.Level],
    strict: bool,
    status: int,
) -> None:
    found = [Finding(level, "name", "What is so.", "What to do.") for level in levels]
    monkeypatch.setattr(examining, "of_gil", lambda *_: found)
    for name in ("of_cpus", "of_limits", "of_neighbours"):
        monkeypatch.setattr(examining, name, lambda *_: [])
    assert main(["doctor", *(["--strict"] if strict else [])]) == status
    assert capsys.readouterr().out


def doctor(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "tokengate", "doctor", *words],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_as_a_user_starts_it() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    titles = [line for line in done.stdout.splitlines() if line[:1].isalpha()]
    assert titles[1:5] == ["Versions", "GIL", "CPUs", "Lanes"]


@pytest.mark.parametrize(
    ("variable", "value", "wrong", "instead"),
    [
        ("TOKENGATE_CPUS", "60000", "asks for 60000 CPUs", ""),
        ("TOKENGATE_THREAD_WORKERS", "many", "is not a whole number", "64 instead"),
    ],
)
def test_on_a_bad_day(variable: str, value: str, wrong: str, instead: str) -> None:
    """What is wrong with the environment is told, by the doctor and before it, not by a traceback."""
    done = doctor(**{variable: value})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = f"{variable}={value!r} {wrong}"
    assert f"RuntimeWarning: {told}" in done.stderr
    assert f"the default coordinator goes by {instead}" in done.stderr
    assert f"ERROR: {told}" in " ".join(done.stdout.split())
    assert done.stdout.rstrip().splitlines()[-1].startswith("1 error, ")


def test_a_slow_switch_interval_is_told(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import sys; sys.setswitchinterval(0.1)")
    paths = os.pathsep.join([str(PACKAGE_ROOT), str(tmp_path)])
    done = doctor("--import", "slow", "--json", PYTHONPATH=paths)
    data = json.loads(done.stdout)
    assert data["imported"] == {"slow": "ok"}
    assert data["gil"]["switch_interval"] == pytest.approx(0.1)
    assert ("switch-interval-long" in [each["name"] for each in data["findings"]]) == (
        data["gil"]["enabled"]
    )
