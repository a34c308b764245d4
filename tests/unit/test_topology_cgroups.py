"""What control groups leave to a process, read from faked trees of both versions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tokengate.machine import cgroups

V2 = "31 23 0:28 {shown} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 {shown} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"


def tree(
    root: Path, groups: str, mounts: str, files: dict[str, str], mount_point: str = "sys/fs/cgroup"
) -> Path:
    """A faked system: `/proc/self` says this, and below the mount point are these files."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text("23 1 254:0 / / rw - ext4 /dev/vda rw\nnonsense\n" + mounts)
    for name, text in files.items():
        file = root / mount_point / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def v2(root: Path, files: dict[str, str], path: str = "/a/b", shown: str = "/") -> Path:
    return tree(root, f"0::{path}\n", V2.format(shown=shown), files)


def v1(root: Path, files: dict[str, str], path: str = "/a/b", shown: str = "/") -> Path:
    mounts = V1.format(shown=shown, name="cpu,cpuacct") + V1.format(shown=shown, name="cpuset")
    groups = f"9:name=systemd:/x\n3:cpuset:{path}\n2:cpu,cpuacct:{path}\n0::/x\n"
    return tree(root, groups, mounts, files)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/b/cpu.max": "150000 100000"}, 1.5),
        ({"a/b/cpu.max": "max 100000"}, None),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ({"a/b/cpu.max": "50000 100000", "a/cpu.max": "400000 100000"}, 0.5),
        ({"cpu.max": "25000 50000"}, 0.5),  # as in a container, whose top has limits too
        ({}, None),
        ({"a/b/cpu.max": ""}, None),
        ({"a/b/cpu.max": "many"}, None),
        ({"a/b/cpu.max": "1.5 1"}, None),
        ({"a/b/cpu.max": "0 100000"}, None),
        ({"a/b/cpu.max": "100000 0"}, None),
        ({"other/cpu.max": "1000 100000"}, None),
    ],
)
def test_quota_of_version_2(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert cgroups.quota(v2(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("own", "above", "expected"),
    [
        (("250000", "100000"), None, 2.5),
        (("-1", "100000"), None, None),
        (("-1", "100000"), ("30000", "10000"), 3.0),
        (("100000", "100000"), ("30000", "10000"), 1.0),
        (("100000", ""), None, None),
    ],
)
def test_quota_of_version_1(
    tmp_path: Path,
    own: tuple[str, str],
    above: tuple[str, str] | None,
    expected: float | None,
) -> None:
    files = {}
    for folder, pair in (("a/b", own), ("a", above)):
        if pair is not None:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            for name, text in zip(names, pair, strict=True):
                files[f"cpu,cpuacct/{folder}/{name}"] = text
    assert cgroups.quota(v1(tmp_path, files)) == expected


def test_the_tighter_of_both_versions(tmp_path: Path) -> None:
    mounts = V1.format(shown="/", name="cpu") + (
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    files = {
        "cpu/a/cpu.cfs_quota_us": "300000",
        "cpu/a/cpu.cfs_period_us": "100000",
        "unified/b/cpu.max": "200000 100000",
    }
    assert cgroups.quota(tree(tmp_path, "1:cpu:/a\n0::/b\n", mounts, files)) == 2.0


@pytest.mark.parametrize(
    ("path", "shown", "where"),
    [
        ("/docker/abc", "/docker/abc", "."),  # the mount shows our own group alone
        ("/docker/abc/worker", "/docker/abc", "worker"),
        ("/docker/abc/worker", "/docker/abc", "."),
        ("/host/slice", "/docker/abc", "."),  # some other part: its top is the best there is
        ("/../sibling", "/", "."),  # outside of this namespace
        ("/", "/", "."),
    ],
)
def test_where_a_container_sees_its_group(
    tmp_path: Path, path: str, shown: str, where: str
) -> None:
    files = {f"{where}/cpu.max": "70000 100000"}
    assert cgroups.quota(v2(tmp_path, files, path, shown)) == 0.7


def test_names_with_spaces_and_colons(tmp_path: Path) -> None:
    mounts = "31 23 0:28 /a\\040b /mnt/c\\040g rw - cgroup2 cgroup2 rw\n"
    root = tree(
        tmp_path, "0::/a b/c:d\n", mounts, {"c:d/cpu.max": "10000 20000"}, mount_point="mnt/c g"
    )
    assert cgroups.quota(root) == 0.5


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/b/cpuset.cpus.effective": "0,2-3"}, {0, 2, 3}),
        ({"a/b/cpuset.cpus.effective": "", "a/cpuset.cpus.effective": "1"}, {1}),
        ({"cpuset.cpus.effective": "0-7"}, set(range(8))),
        ({"a/b/cpuset.cpus.effective": "rubbish", "a/cpuset.cpus.effective": "4"}, {4}),
        ({}, None),
    ],
)
def test_cpuset_of_version_2(
    tmp_path: Path, files: dict[str, str], expected: set[int] | None
) -> None:
    assert cgroups.cpuset(v2(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpuset/a/b/cpuset.effective_cpus": "1", "cpuset/a/b/cpuset.cpus": "0-1"}, {1}),
        ({"cpuset/a/b/cpuset.cpus": "0-1"}, {0, 1}),
        ({"cpuset/cpuset.cpus": "0-3"}, {0, 1, 2, 3}),
    ],
)
def test_cpuset_of_version_1(tmp_path: Path, files: dict[str, str], expected: set[int]) -> None:
    assert cgroups.cpuset(v1(tmp_path, files)) == expected


def test_throttled_time_is_that_of_the_group_that_limits(tmp_path: Path) -> None:
    stat = "usage_usec 9\nnr_periods 10\nnr_throttled 3\nthrottled_usec 1500000"
    files = {
        "a/b/cpu.max": "max 100000",
        "a/b/cpu.stat": "nr_throttled 0\nthrottled_usec 0",
        "a/cpu.max": "50000 100000",
        "a/cpu.stat": stat,
    }
    assert cgroups.throttling(v2(tmp_path, files)) == cgroups.Throttling(3, 1.5)


def test_throttled_time_of_version_1(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/a/b/cpu.cfs_quota_us": "50000",
        "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/a/b/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 2500000000",
    }
    assert cgroups.throttling(v1(tmp_path, files)) == cgroups.Throttling(4, 2.5)


def test_nothing_is_throttled_without_a_quota(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "max 100000", "a/b/cpu.stat": "nr_throttled 0\nthrottled_usec 0"}
    assert cgroups.throttling(v2(tmp_path, files)) is None


def test_kills_for_want_of_memory(tmp_path: Path) -> None:
    files = {"a/b/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 9"}
    assert cgroups.memory_kills(v2(tmp_path, files)) == 2


def test_kills_for_want_of_memory_of_version_1(tmp_path: Path) -> None:
    files = {"memory/a/b/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4"}
    root = tree(tmp_path, "7:memory:/a/b\n0::/x\n", V1.format(shown="/", name="memory"), files)
    assert cgroups.memory_kills(root) == 4


@pytest.mark.parametrize("text", ["", "oom_kill_disable 0\nunder_oom 0", "oom_kill many"])
def test_kills_that_are_not_told(tmp_path: Path, text: str) -> None:
    assert cgroups.memory_kills(v2(tmp_path, {"a/b/memory.events": text})) is None


def test_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert cgroups.quota(tmp_path) is None
    assert cgroups.cpuset(tmp_path) is None
    assert cgroups.throttling(tmp_path) is None
    assert cgroups.memory_kills(tmp_path) is None
    assert cgroups.watched_files(tmp_path) == []


def test_all_that_matters_is_watched(tmp_path: Path) -> None:
    files = {
        "a/b/cpu.max": "max 100000",
        "a/cpu.max": "max 100000",
        "a/b/cpu.weight": "100",
        "a/b/cpuset.cpus.effective": "0-1",
    }
    found = cgroups.watched_files(v2(tmp_path, files))
    names = [Path(each.decode()).relative_to(tmp_path).as_posix() for each in found]
    assert names == [
        "proc/self/cgroup",
        "sys/fs/cgroup/a/b/cpu.max",
        "sys/fs/cgroup/a/cpu.max",
        "sys/fs/cgroup/a/b/cpuset.cpus.effective",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_this_machine() -> None:
    root = Path("/")
    limit = cgroups.quota(root)
    assert limit is None or limit > 0
    group = cgroups.cpuset(root)
    assert group is None or group
    assert b"/proc/self/cgroup" in cgroups.watched_files(root)
