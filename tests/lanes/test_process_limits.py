"""Lanes where there is little: one CPU, a cgroup's share of one, a cgroup's memory. Real ones, which
needs Linux and the right to make a cgroup."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tokengate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups and affinity are Linux's")

HERE = Path(__file__).parent
ROOT = Path("/sys/fs/cgroup")
TIMEOUT = 60.0

NewGroup = Callable[..., Path]


def own(controller: str) -> Path:
    """Where this process is in the hierarchy of the controller."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return ROOT / controller / path.lstrip("/")
    pytest.skip(f"no hierarchy of the first kind for {controller} here")


@pytest.fixture
def new_group() -> Iterator[NewGroup]:
    """`new_group(controller, {file: text})`: a cgroup below that of this process."""
    made: list[Path] = []

    def new(controller: str, settings: dict[str, str]) -> Path:
        group = own(controller) / f"tokengate-test-{os.getpid()}"
        try:
            group.mkdir()
            made.append(group)
            for file, text in settings.items():
                (group / file).write_text(text)
        except OSError as error:
            pytest.skip(f"cannot make a cgroup here: {error}")
        return group

    yield new
    for group in made:
        for _ in range(200):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)  # what ran in it is just ending
        else:
            pytest.fail(f"processes are left in {group}: {(group / 'cgroup.procs').read_text()}")


def run(what: str, *groups: Path, cpus: set[int] | None = None) -> dict[str, Any]:
    """within_limits.py in these cgroups, and on these CPUs."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "within_limits.py"), what, *map(str, groups)],
        env={**os.environ, "PYTHONPATH": str(Path(tokengate.__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)
        out, err = process.communicate()
        pytest.fail(f"it hangs\n{out}{err}")
    assert (process.returncode, err) == (0, ""), f"{process.returncode}\n{out}{err}"
    found: dict[str, Any] = json.loads(out)
    return found


def test_on_one_cpu() -> None:
    found = run("cpus", cpus={min(os.sched_getaffinity(0))})
    assert found.pop("count") == 1
    assert found.pop("thread") > 1  # they may sleep
    assert set(found.values()) == {1}


def test_with_a_share_of_one_cpu(new_group: NewGroup) -> None:
    group = new_group("cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "60000"})
    found = run("cpus", group)
    assert found.pop("count") == 1
    assert found.pop("thread") > 1
    assert set(found.values()) == {1}


def test_killed_for_its_memory(new_group: NewGroup) -> None:
    """The kernel ends the worker that takes most, and the token says so; the others run on the next one."""
    group = new_group("memory", {"memory.limit_in_bytes": str(400 << 20)})
    with contextlib.suppress(OSError):
        (group / "memory.memsw.limit_in_bytes").write_text(str(400 << 20))
    told = run("memory", group)["told"]
    assert "SIGKILL" in told
    assert "out of memory, says the kernel" in told
