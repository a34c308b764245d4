"""The machine's bare futex-to-eventfd round trip: `round_trip.c`, compiled where it is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from _harness import Missing

SOURCE = Path(__file__).with_name("round_trip.c")
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Placements:
    """Microseconds of a round trip, by where the two threads sit."""

    unpinned: float
    """Where the scheduler puts them."""
    together: float
    """Both on one CPU."""
    apart: float | None
    """On two CPUs; None where this process may use one only."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The compiled program; `measure` runs it once."""

    program: Path

    def measure(self, trips: int) -> Placements:
        """Median microseconds of `trips` trips in each placement of the two threads."""
        done = subprocess.run(  # noqa: S603 - our own program, built a moment ago
            [str(self.program), str(trips)],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        unpinned, together, apart = (int(word) / 1_000 for word in done.stdout.split())
        return Placements(unpinned, together, apart or None)


@contextmanager
def compiled() -> Iterator[RoundTrip]:
    """The program, in a temporary folder that is gone afterwards.

    Raises `Missing` on other systems than Linux, without a C compiler, or if it does not compile.
    """
    if sys.platform != "linux":
        raise Missing("the bare round trip uses futex and eventfd: Linux only")
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="tokengate-bench-") as folder:
        program = Path(folder) / "round_trip"
        build = subprocess.run(  # noqa: S603 - the system's own compiler
            [compiler, "-O2", "-std=c11", "-pthread", "-o", str(program), str(SOURCE)],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        if build.returncode:
            raise Missing(f"the bare round trip did not compile: {build.stderr.strip()}")
        yield RoundTrip(program)


def find_compiler() -> str:
    """The C compiler of $CC, else `cc`, else the one Python was built with. `Missing` if none."""
    built_with = str(sysconfig.get_config_var("CC") or "").split(" ")[0]
    for name in (os.environ.get("CC", ""), "cc", built_with):
        if name and (found := shutil.which(name)):
            return found
    raise Missing("no C compiler (cc) found: the bare round trip is left out")
