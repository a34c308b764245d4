"""Profiles: written, found, refused, and what a coordinator makes of one."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, task_token_guard, use
from tokengate.profile import (
    FORMAT,
    Build,
    LaneProfile,
    Machine,
    Profile,
    default_path,
    load_profile,
    save_profile,
    this_build,
    this_machine,
)

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator, RunPython

TIMEOUT = 30.0

PROFILE = Profile(
    machine=this_machine(),
    python=this_build(),
    task="mix",
    lane="process",
    lanes={"thread": LaneProfile(3, 5, "none"), "process": LaneProfile(7, 9, "auto")},
    made="2026-01-02T03:04:05+00:00",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "profile.json"
    save_profile(PROFILE, found)
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path))
    return tmp_path


# -- the file ----------------------------------------------------------------------------------


def test_what_is_written_is_read(path: Path) -> None:
    assert load_profile(path) == PROFILE
    limited = replace(PROFILE, machine=replace(PROFILE.machine, quota=1.5))
    save_profile(limited, path)
    assert load_profile(path) == limited


def test_writing_makes_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "p.json"
    save_profile(PROFILE, path)
    save_profile(PROFILE, path)
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        save_profile(replace(PROFILE, task="io"), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_default_place_is_of_the_machine_and_the_python(home: Path) -> None:
    path = default_path()
    assert path.parent.parts[-2:] == ("tokengate", "profiles")
    assert home in path.parents
    machine, python = this_machine(), this_build()
    others = [
        default_path(replace(machine, usable_cpus=99), python),
        default_path(replace(machine, cpu="abacus"), python),
        default_path(replace(machine, quota=0.5), python),
        default_path(machine, replace(python, version="3.99")),
        default_path(machine, replace(python, gil=not python.gil)),
    ]
    assert len({path, *others}) == 6
    assert default_path(machine, python) == path


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG folders")
@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_a_config_home_that_is_none_is_ignored(
    value: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", value)
    assert default_path().parent == home / ".config/tokengate/profiles"


def test_the_machine_is_what_the_system_says(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 3000 \nflags: x\n")
    assert this_machine(root=tmp_path).cpu == "Abacus 3000"
    (proc / "cpuinfo").write_text("processor: 0\nFeatures: fp\n")
    assert this_machine(root=tmp_path).cpu  # some name there is everywhere
    assert this_machine().usable_cpus == len(tokengate.topology().cpus)


def test_the_build_is_this_python() -> None:
    found = this_build()
    assert found.version == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert found.gil == getattr(sys, "_is_gil_enabled", lambda: True)()


# -- damaged -----------------------------------------------------------------------------------


def damaged(**changes: Any) -> Any:
    def change(data: dict[str, Any]) -> None:
        for name, value in changes.items():
            where = data
            *parents, last = name.split("__")
            for parent in parents:
                where = where[parent]
            if value is ...:
                del where[last]
            else:
                where[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (damaged(kind=...), "it is not a profile of TokenGate"),
        (damaged(format=FORMAT + 1), f"its format is {FORMAT + 1}, this version reads {FORMAT}"),
        (damaged(machine=...), "machine is None instead of an object"),
        (damaged(machine__cpu=5), "cpu is 5 instead of a text"),
        (damaged(machine__usable_cpus="2"), "usable_cpus is '2' instead of a whole number"),
        (damaged(machine__physical_cores=True), "physical_cores is True instead of a whole"),
        (damaged(machine__quota="1"), "quota is '1' instead of a number or null"),
        (damaged(python__gil=1), "gil is 1 instead of true or false"),
        (damaged(python=[]), "python is [] instead of an object"),
        (damaged(lanes={}), "it has no lanes"),
        (damaged(lanes__thread=3), "lane 'thread' is 3 instead of an object"),
        (damaged(lanes__thread__workers=0), "lane 'thread': workers is 0 instead of 1 to 4096"),
        (damaged(lanes__process__in_flight=-1), "lane 'process': in_flight is -1 instead of 1"),
        (damaged(lanes__process__in_flight=2.5), "in_flight is 2.5 instead of a whole number"),
        (damaged(lanes__thread__pin="tight"), "lane 'thread': pin is 'tight' instead of 'auto'"),
        (damaged(made=None), "made is None instead of a text"),
    ],
)
def test_a_damaged_profile_says_what_is_wrong(change: Any, complaint: str, path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match="can not be used") as refused:
        Coordinator(profile=path)
    assert complaint in str(refused.value)
    assert repr(str(path)) in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{}", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="can not be used"):
        Coordinator(profile=path)


def test_a_file_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="python -m tokengate sweep --profile"):
        Coordinator(profile=tmp_path / "none.json")


@pytest.mark.parametrize("value", [False, 1, 2.5, b"path"])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="profile=.*expected the path of a file, True, or None"):
        Coordinator(profile=value)


# -- elsewhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "python", "complaint"),
    [
        ({"cpu": "Abacus"}, {}, f"CPU 'Abacus' there, {this_machine().cpu!r} here"),
        ({"usable_cpus": 999}, {}, f"usable CPUs 999 there, {this_machine().usable_cpus} here"),
        ({"physical_cores": 999}, {}, "physical cores 999 there"),
        ({"quota": 99.5}, {}, "quota 99.5 there"),
        ({}, {"version": "3.99"}, f"Python version '3.99' there, {this_build().version!r} here"),
        ({}, {"implementation": "Other"}, "Python implementation 'Other' there, 'CPython' here"),
        (
            {},
            {"gil": not this_build().gil},
            f"Python GIL {'off there, on' if this_build().gil else 'on there, off'} here",
        ),
    ],
)
def test_a_profile_of_elsewhere_is_refused_and_says_what_differs(
    machine: dict[str, Any], python: dict[str, Any], complaint: str, path: Path
) -> None:
    other = replace(
        PROFILE,
        machine=replace(PROFILE.machine, **machine),
        python=replace(PROFILE.python, **python),
    )
    save_profile(other, path)
    with pytest.raises(ValueError, match="was not measured here") as refused:
        Coordinator(profile=path)
    assert complaint in str(refused.value)
    assert str(refused.value).count("there,") == 1


def test_everything_that_differs_is_told(path: Path) -> None:
    other = replace(PROFILE, machine=Machine("Abacus", 7, 7, 7.0), python=Build("X", "1.0", True))
    save_profile(other, path)
    with pytest.raises(ValueError, match="Abacus.*usable CPUs 7.*quota 7.0.*implementation 'X'"):
        Coordinator(profile=path)


# -- in force ----------------------------------------------------------------------------------


def test_a_coordinator_goes_by_its_profile(path: Path, new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator(profile=str(path))
    stats = coordinator.stats()
    assert stats.profile == str(path)
    assert stats.as_dict()["profile"] == str(path)
    assert stats.lanes["thread"].max_workers == 3
    coordinator.submit(len, "one").result(TIMEOUT)
    assert new_coordinator().stats().profile is None


@pytest.mark.skipif(sys.platform == "win32", reason="no process lane")
def test_the_process_lane_goes_by_it_too(path: Path, new_coordinator: NewCoordinator) -> None:
    def workers(**settings: Any) -> int:
        coordinator = new_coordinator(**settings)
        with use(coordinator):
            assert travelling("abc").result(TIMEOUT) == 3
        return coordinator.stats().lanes["process"].max_workers

    travelling = task_token_guard("profile_len", lane="process")(len)
    assert workers(profile=path) == 7
    assert workers(profile=path, process_workers=1) == 1


def test_explicit_arguments_win(path: Path, new_coordinator: NewCoordinator) -> None:
    coordinator = new_coordinator(profile=path, thread_workers=2)
    assert coordinator.stats().lanes["thread"].max_workers == 2
    assert coordinator.stats().profile == str(path)


def test_the_environment_of_the_process_wins(
    path: Path, new_coordinator: NewCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENGATE_THREAD_WORKERS", "6")
    assert new_coordinator(profile=path).stats().lanes["thread"].max_workers == 6


@pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")
@pytest.mark.parametrize(("pin", "pinned"), [("auto", True), ("core", True), ("none", False)])
def test_the_pinning_of_the_profile_is_real_and_an_explicit_one_wins(
    pin: Any, pinned: bool, path: Path, new_coordinator: NewCoordinator
) -> None:
    save_profile(replace(PROFILE, lanes={"thread": LaneProfile(1, 5, "core")}), path)
    coordinator = new_coordinator(profile=path, pin=pin)
    affinity = coordinator.submit(os.sched_getaffinity, 0).result(TIMEOUT)
    assert (len(affinity) == 1) == (pinned or len(os.sched_getaffinity(0)) == 1)


def test_a_map_keeps_as_many_calls_under_way_as_the_profile_says(
    path: Path, new_coordinator: NewCoordinator
) -> None:
    taken = 0
    enough = threading.Event()

    @task_token_guard("profile_same")
    def same(item: int) -> int:
        # a result that came early would be handed out before all that may be under way is
        assert enough.wait(TIMEOUT)
        return item

    def takes(function: Any, expected: int, **options: Any) -> None:
        """So many items have been taken when the first result has come."""
        nonlocal taken
        taken = 0
        enough.clear()

        def items() -> Any:
            nonlocal taken
            for item in range(100):
                taken += 1
                if taken == expected:
                    enough.set()
                yield item

        results = iter(function.map(items(), **options))
        assert next(results) == 0
        assert taken == expected
        assert list(results) == list(range(1, 100))

    profiled, plain = new_coordinator(profile=path), new_coordinator()
    with use(profiled):
        takes(same, 5)
        takes(same, 2, in_flight=2)
    with use(plain):
        takes(same, 100)
        takes(same.options(coordinator=profiled), 5)


async def test_a_map_that_is_awaited_goes_by_it_too(
    path: Path, new_coordinator: NewCoordinator
) -> None:
    coordinator = new_coordinator(profile=path)
    under_way = 0
    most = 0
    lock = threading.Lock()

    @task_token_guard("profile_counted")
    def counted(_: int) -> None:
        nonlocal under_way
        with lock:
            under_way -= 1

    def items() -> Any:
        nonlocal under_way, most
        for item in range(200):
            with lock:
                under_way += 1
                most = max(most, under_way)
            yield item

    with use(coordinator):
        assert len(await counted.map(items())) == 200
    # it takes the next item when it has room, so one more than calls under way
    assert most <= 6


# -- the default place -------------------------------------------------------------------------


def test_true_takes_the_profile_of_this_machine(
    home: Path, new_coordinator: NewCoordinator
) -> None:
    save_profile(PROFILE, default_path())
    stats = new_coordinator(profile=True).stats()
    assert stats.profile == str(default_path())
    assert home in Path(stats.profile).parents
    assert stats.lanes["thread"].max_workers == 3


def test_true_without_one_goes_on_and_says_so(
    home: Path, new_coordinator: NewCoordinator, logged: list[logging.LogRecord]
) -> None:
    coordinator = new_coordinator(profile=True)
    record = logged.pop()
    assert str(default_path()) in record.getMessage()
    assert "python -m tokengate sweep" in record.getMessage()
    assert coordinator.stats().profile is None
    assert list(home.iterdir()) == []


def test_true_with_a_damaged_one_is_an_error(home: Path) -> None:
    path = default_path()
    path.parent.mkdir(parents=True)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="can not be used"):
        Coordinator(profile=True)


# -- the default coordinator -------------------------------------------------------------------


def test_the_default_coordinator_takes_one(path: Path, run_python: RunPython) -> None:
    program = f"""
import tokengate
profile = {str(path)!r}
try:
    tokengate.configure_default(profile=profile + ".none", name="wrong")
except FileNotFoundError:
    pass
default = tokengate.get_coordinator()
assert (default.name, default.stats().profile) == ("tokengate", None)
assert tokengate.configure_default(profile=profile) is default
assert default.stats().profile == profile
assert default.stats().lanes["thread"].max_workers == 3
tokengate.configure_default(profile=profile, thread_workers=4)
assert default.stats().lanes["thread"].max_workers == 4
tokengate.configure_default()
assert default.stats().profile is None
print("configured")
"""
    assert "configured" in run_python(program)
