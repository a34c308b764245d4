"""A profile: the settings that a sweep found best on this machine with this Python, in a file.

A file has one profile, as JSON. It says for which machine (CPU model, usable CPUs, physical cores,
quota) and which Python (implementation, version, GIL) it was measured, and is refused on any other:
there it would be a guess that looks like a measurement. In the default folder the name of a file
follows from both, so that machines that share a home each find their own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from tokengate._core import gil_enabled
from tokengate.machine.pinning import Pin
from tokengate.machine.snapshot import topology
from tokengate.settings import ProfileSource

__all__ = [
    "FORMAT",
    "Build",
    "LaneProfile",
    "Machine",
    "Profile",
    "ProfileSource",
    "default_path",
    "load_profile",
    "requested_profile",
    "save_profile",
    "this_build",
    "this_machine",
]

FORMAT = 1
"""Goes up when an older version would misread a newer file."""
KIND = "tokengate profile"

_PINS: dict[str, Pin] = {"auto": "auto", "core": "core", "none": "none"}
_MOST_WORKERS = 4096
_MOST_IN_FLIGHT = 2**31 - 1
_log = logging.getLogger("tokengate")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a measurement depends on, of the machine."""

    cpu: str
    """The model, as the system calls it."""
    usable_cpus: int
    physical_cores: int
    """Among the usable CPUs."""
    quota: float | None
    """CPU seconds per second; None: no limit."""


@dataclass(frozen=True, slots=True)
class Build:
    """What a measurement depends on, of Python."""

    implementation: str
    version: str
    """Without the patch level: ``3.14``."""
    gil: bool


@dataclass(frozen=True, slots=True)
class LaneProfile:
    """What suits one lane."""

    workers: int
    in_flight: int
    """Calls under way at a time: what `.map` takes where nothing else is asked for."""
    pin: Pin


@dataclass(frozen=True, slots=True)
class Profile:
    """The result of a sweep."""

    machine: Machine
    python: Build
    task: str
    """What was measured: ``python``, ``io`` or ``mix``."""
    lane: str
    """The best one for that task."""
    lanes: Mapping[str, LaneProfile]
    made: str
    """When, in ISO 8601."""


# -- where it holds ----------------------------------------------------------------------------


def this_machine(*, root: Path = Path("/")) -> Machine:
    """The machine, as far as this process may use it; ValueError as `topology`.

    root: where ``proc`` and ``sys`` are found, for tests.
    """
    cpus = topology(root=root)
    quota = None if cpus.quota is None or cpus.override is not None else round(cpus.quota, 2)
    return Machine(_cpu_model(root), len(cpus.cpus), cpus.physical_cores, quota)


def this_build() -> Build:
    """The Python that runs here."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Build(platform.python_implementation(), version, gil_enabled())


def _cpu_model(root: Path) -> str:
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def default_path(machine: Machine | None = None, python: Build | None = None) -> Path:
    """Where the profile of a machine and a Python (None: of these) is kept by default.

    In the folder ``tokengate/profiles`` of the user's configuration: ``XDG_CONFIG_HOME``, or
    ``~/.config``; on macOS ``~/Library/Application Support``, on Windows ``APPDATA``.
    """
    machine = this_machine() if machine is None else machine
    python = this_build() if python is None else python
    key = json.dumps([asdict(machine), asdict(python)], sort_keys=True)
    name = f"{python.implementation}-{python.version}{'' if python.gil else 't'}"
    return _folder() / f"{name.lower()}-{sha256(key.encode()).hexdigest()[:12]}.json"


def _folder() -> Path:
    if sys.platform == "win32":
        home = Path(os.environ.get("APPDATA") or Path.home() / "AppData/Roaming")
    elif sys.platform == "darwin":
        home = Path.home() / "Library/Application Support"
    else:
        home = Path(os.environ.get("XDG_CONFIG_HOME", ""))
        if not home.is_absolute():  # the specification says to ignore it then
            home = Path.home() / ".config"
    return home / "tokengate/profiles"


# -- written -----------------------------------------------------------------------------------


def save_profile(profile: Profile, path: Path) -> None:
    """Write it to `path`, making the folder; OSError if that can not be done.

    Whoever reads meanwhile gets the old file or the new one, whole.
    """
    plain = {
        "kind": KIND,
        "format": FORMAT,
        "made": profile.made,
        "machine": asdict(profile.machine),
        "python": asdict(profile.python),
        "task": profile.task,
        "lane": profile.lane,
        "lanes": {name: asdict(each) for name, each in profile.lanes.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(plain, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())  # else a crash could leave the new name with nothing in it
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


# -- read --------------------------------------------------------------------------------------


def requested_profile(source: ProfileSource) -> tuple[Profile, Path] | None:
    """What ``Coordinator(profile=...)`` asks for, and where it was found; checked, see below.

    A path: that file; FileNotFoundError if there is none. True: the default one; None if there is
    none, which is logged as a warning, since a program goes to machines nobody has swept.
    ValueError for a file that is damaged, or of another machine or Python, naming what differs.
    """
    if source is True:
        path = default_path()
        if not path.exists():
            _log.warning(
                "profile=True: there is no profile of this machine and this Python (%s): going on "
                "without one. `python -m tokengate sweep` makes it",
                path,
            )
            return None
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
    else:
        raise TypeError(f"profile={source!r}: expected the path of a file, True, or None")
    profile = load_profile(path)
    differences = [
        *_differences("", profile.machine, this_machine()),
        *_differences("Python ", profile.python, this_build()),
    ]
    if differences:
        raise ValueError(
            f"profile {str(path)!r} was not measured here: {'; '.join(differences)}. Make one with "
            f"`python -m tokengate sweep --profile {path}`, or leave profile= away"
        )
    return profile, path


def _differences(prefix: str, there: Machine | Build, here: Machine | Build) -> list[str]:
    found = []
    for each in fields(there):
        theirs, ours = getattr(there, each.name), getattr(here, each.name)
        if theirs != ours:
            name = each.name.replace("_", " ").replace("cpu", "CPU").replace("gil", "GIL")
            found.append(f"{prefix}{name} {_told(theirs)} there, {_told(ours)} here")
    return found


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else repr(value)


def load_profile(path: Path) -> Profile:
    """Read a profile, of whatever machine.

    FileNotFoundError, or another OSError, if it can not be read; ValueError, saying what is wrong
    with it, if it is no profile.
    """
    try:
        return _parsed(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no profile {str(path)!r}: "
            f"`python -m tokengate sweep --profile {path}` makes it"
        ) from None
    except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8 are ValueErrors, too
        raise ValueError(
            f"profile {str(path)!r} can not be used: {error}. Make it anew with "
            f"`python -m tokengate sweep --profile {path}`"
        ) from None


def _parsed(data: Any) -> Profile:
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise ValueError("it is not a profile of TokenGate")
    if data.get("format") != FORMAT:
        raise ValueError(f"its format is {data.get('format')!r}, this version reads {FORMAT}")
    machine, python = _part(data, "machine"), _part(data, "python")
    lanes = {name: _lane(name, each) for name, each in _part(data, "lanes").items()}
    if not lanes:
        raise ValueError("it has no lanes")
    return Profile(
        machine=Machine(
            _value(machine, "cpu", str),
            _value(machine, "usable_cpus", int),
            _value(machine, "physical_cores", int),
            _quota(machine),
        ),
        python=Build(
            _value(python, "implementation", str),
            _value(python, "version", str),
            _value(python, "gil", bool),
        ),
        task=_value(data, "task", str),
        lane=_value(data, "lane", str),
        lanes=MappingProxyType(lanes),
        made=_value(data, "made", str),
    )


def _lane(name: str, data: Any) -> LaneProfile:
    if not isinstance(data, dict):
        raise ValueError(f"lane {name!r} is {data!r} instead of an object")
    pin = _value(data, "pin", str)
    if pin not in _PINS:
        raise ValueError(f"lane {name!r}: pin is {pin!r} instead of 'auto', 'core' or 'none'")
    return LaneProfile(
        _count(name, data, "workers", _MOST_WORKERS),
        _count(name, data, "in_flight", _MOST_IN_FLIGHT),
        _PINS[pin],
    )


def _count(lane: str, data: dict[str, Any], name: str, most: int) -> int:
    value: int = _value(data, name, int)
    if not 1 <= value <= most:
        raise ValueError(f"lane {lane!r}: {name} is {value} instead of 1 to {most}")
    return value


def _quota(data: dict[str, Any]) -> float | None:
    value = data.get("quota")
    if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
        raise ValueError(f"quota is {value!r} instead of a number or null")
    return value


def _part(data: dict[str, Any], name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", _value(data, name, dict))


def _value(data: dict[str, Any], name: str, kind: type) -> Any:
    value = data.get(name)
    if type(value) is not kind:  # a bool is an int otherwise
        raise ValueError(f"{name} is {value!r} instead of {_KINDS[kind]}")
    return value


_KINDS = {dict: "an object", str: "a text", int: "a whole number", bool: "true or false"}
