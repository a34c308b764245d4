"""What Linux control groups leave to this process: a set of CPUs, and a quota of CPU time.

A process is in one group of every hierarchy: of version 2 (``cpu.max``, ``cpuset.cpus.effective``)
and, on systems that still have it, of each controller of version 1 (``cpu.cfs_quota_us``,
``cpuset.effective_cpus``). Groups are nested, and each of those above limits as well: the tightest
quota on the way up to the mount point counts. In a container the mount may show a part of the
hierarchy only, or call it otherwise than ``/proc/self/cgroup`` does; ``/proc/self/mountinfo`` has
both names.

Nothing is remembered between calls: quotas are changed while processes run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tokengate.machine.lists import parse_cpus

__all__ = ["Throttling", "cpuset", "memory_kills", "quota", "throttling", "watched_files"]

_V2 = ""  # the controller's name in place of those of version 1


@dataclass(frozen=True, slots=True)
class Throttling:
    """How often the quota has stopped a control group, since the group was made."""

    periods: int
    """In which the quota ran out."""
    seconds: float
    """Stopped for so long; the sum over CPUs."""


def quota(root: Path) -> float | None:
    """CPU seconds per second that the tightest group allows, more than 0; None: no limit."""
    return min((limit for _, limit in _limits(root)), default=None)


def cpuset(root: Path) -> frozenset[int] | None:
    """CPU ids of the group's cpuset; None where there is none, or nothing can be read."""
    for name, folders in _ways_up(root, "cpuset"):
        files = ["cpuset.cpus.effective"]
        if name != _V2:
            files = ["cpuset.effective_cpus", "cpuset.cpus"]
        # The nearest that says something: it has been narrowed by those above it already.
        for folder in folders:
            for file in files:
                text = _read(folder / file)
                if text:
                    try:
                        return parse_cpus(text)
                    except ValueError:
                        continue
    return None


def throttling(root: Path) -> Throttling | None:
    """What the quota has cost so far, of the group that limits most; None: no group limits."""
    limits = list(_limits(root))
    if not limits:
        return None
    folder, _ = min(limits, key=lambda pair: pair[1])
    figures = dict(re.findall(r"^(\w+) (\d+)$", _read(folder / "cpu.stat"), flags=re.M))
    if "throttled_usec" in figures:
        seconds = int(figures["throttled_usec"]) / 1e6
    elif "throttled_time" in figures:  # version 1, ns
        seconds = int(figures["throttled_time"]) / 1e9
    else:
        return None
    return Throttling(int(figures.get("nr_throttled", 0)), seconds)


def memory_kills(root: Path = Path("/")) -> int | None:
    """Processes of this group that the kernel killed for want of memory; None: it does not say."""
    kills: list[int] = []
    for name, folders in _ways_up(root, "memory"):
        file = "memory.events" if name == _V2 else "memory.oom_control"
        found = re.search(r"^oom_kill (\d+)$", _read(folders[0] / file), flags=re.M)
        if found is not None:
            kills.append(int(found[1]))
    return max(kills, default=None)


def watched_files(root: Path = Path("/")) -> list[bytes]:
    """Paths of what the answers above depend on and what changes while a process runs."""
    files = [root / "proc/self/cgroup"]
    for name, folders in _ways_up(root, "cpu"):
        for folder in folders:
            if name == _V2:
                files.append(folder / "cpu.max")
            else:
                files += [folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"]
    for name, folders in _ways_up(root, "cpuset"):
        leaf = "cpuset.cpus.effective" if name == _V2 else "cpuset.effective_cpus"
        files += [folder / leaf for folder in folders]
    return [os.fsencode(file) for file in files if file.exists()]


def _limits(root: Path) -> Iterator[tuple[Path, float]]:
    for name, folders in _ways_up(root, "cpu"):
        for folder in folders:
            limit = _limit_v2(folder) if name == _V2 else _limit_v1(folder)
            if limit is not None:
                yield folder, limit


def _limit_v2(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    if len(words) != 2 or words[0] == "max":
        return None
    return _ratio(*words)


def _limit_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(allowed: str, period: str) -> float | None:
    if not (allowed.isdigit() and period.isdigit()):  # -1 in version 1: no limit
        return None
    return int(allowed) / int(period) if int(allowed) > 0 and int(period) > 0 else None


def _ways_up(root: Path, controller: str) -> Iterator[tuple[str, list[Path]]]:
    """From this process' group up to what is mounted, in each hierarchy with that controller."""
    mounts = _mounts(root)
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        name = controller if names else _V2
        if name in mounts and path.startswith("/"):
            yield name, _folders(root, path, *mounts[name])


def _folders(root: Path, path: str, shown: str, mount_point: str) -> list[Path]:
    top = root / mount_point.lstrip("/")
    try:
        below = PurePosixPath(path).relative_to(shown)
    except ValueError:
        # The mount shows another part: in a container, most often just our own group.
        return [top]
    if ".." in below.parts:  # seen from within a namespace of control groups, it is outside
        return [top]
    return [top / below, *(top / each for each in below.parents if each != below)]


def _mounts(root: Path) -> dict[str, tuple[str, str]]:
    """By controller: which part of its hierarchy is mounted, and where."""
    found: dict[str, tuple[str, str]] = {}
    for line in _read(root / "proc/self/mountinfo").splitlines():
        left, dash, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        place = _plain(fields[3]), _plain(fields[4])
        if kind[0] == "cgroup2":
            found.setdefault(_V2, place)
        elif kind[0] == "cgroup":
            for controller in kind[2].split(","):
                found.setdefault(controller, place)
    return found


def _plain(text: str) -> str:
    # mountinfo writes spaces and the like as \040
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except (OSError, ValueError):
        return ""
