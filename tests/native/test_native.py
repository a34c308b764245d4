"""The native layer alone: each C program beside this file, plain and under the sanitizers.

No interpreter takes part: the headers are compiled with nothing but the C library. Rounds are
chosen so that the folder takes well under a minute on two CPUs, ThreadSanitizer included.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "tokengate" / "_native"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread")
# No run takes more than a few seconds: one that reaches this has lost a wake-up.
HUNG = 60.0


@dataclass(frozen=True)
class Mode:
    """A way to build and run a program."""

    name: str
    flags: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


PLAIN = Mode("plain", ("-O2",))
# -Og: with more, building takes several times as long as running.
MEMORY = Mode(
    "asan+ubsan",
    ("-Og", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    (("ASAN_OPTIONS", "detect_leaks=1"), ("UBSAN_OPTIONS", "print_stacktrace=1")),
)
RACES = Mode(
    "tsan",
    ("-Og", "-g", "-fsanitize=thread"),
    (("TSAN_OPTIONS", "halt_on_error=1:second_deadlock_stack=1"),),
)
MODES = (PLAIN, MEMORY, RACES)

# The argument of each program: rounds plain and under a sanitizer; none where it takes none.
ROUNDS: dict[str, tuple[int, int] | None] = {
    "fair": (20_000, 5_000),
    "gate": (400, 120),
    "ground": None,
    "guest": None,
    "keeper": None,
    "hist": None,
    "inbox": (10_000, 3_000),
    "law": None,
    "parker": (8_000, 2_000),
    "path": (1_500, 600),
    "places": (60, 20),
    "plain": None,
    "pool": (4, 2),
    "port": None,
    "ring": (3_000, 1_000),
    "timer": (3_000, 1_000),
    "wire": None,
    "word": (6, 2),
}
PROGRAMS = [(name, ()) for name in sorted(ROUNDS)] + [
    # Rings of two entries: full and empty all the time.
    (name, ("-DTG_RING_MIN=2u",))
    for name in ("gate", "path", "pool")
]


@functools.cache
def compiler() -> str:
    """The C compiler; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), "")
    if not found:
        pytest.skip("no C compiler: the native layer is NOT tested here")
    return found


def compile_program(source: Path, output: Path, *flags: str) -> None:
    """Compiles one program against the headers; fails the test on any warning."""
    command = [compiler(), *WARNINGS, *flags, f"-I{HEADERS}", str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def run_program(command: list[str], mode: Mode) -> subprocess.CompletedProcess[str]:
    """Runs a program of that mode; raises TimeoutExpired when it hangs."""
    environment = {**os.environ, **dict(mode.environment)}
    return subprocess.run(
        [*fixed_addresses(mode), *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )


@functools.cache
def fixed_addresses(mode: Mode) -> tuple[str, ...]:
    """What starts a ThreadSanitizer program: older ones cannot bear randomised addresses."""
    setarch = shutil.which("setarch")
    if mode is not RACES or setarch is None:
        return ()
    allowed = subprocess.run([setarch, "-R", "true"], capture_output=True, check=False)
    return (setarch, "-R") if allowed.returncode == 0 else ()


@functools.cache
def why_not(mode: Mode, folder: Path) -> str:
    """Why programs of this mode cannot be built or run here; empty if they can."""
    source, program = folder / "probe.c", folder / "probe"
    source.write_text("int main(void) { return 0; }\n", encoding="utf-8")
    command = [compiler(), *mode.flags, str(source), "-o", str(program)]
    for step in (
        subprocess.run(command, capture_output=True, text=True, check=False),
        run_program([str(program)], mode) if program.exists() else None,
    ):
        if step is not None and step.returncode != 0:
            return step.stderr.strip() or f"exit status {step.returncode}"
    return ""


@pytest.fixture(scope="session")
def probe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for what is tried out once."""
    return tmp_path_factory.mktemp("probe")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize(
    ("name", "defines"), PROGRAMS, ids=[name + ("-tiny" if d else "") for name, d in PROGRAMS]
)
def test_program(
    name: str, defines: tuple[str, ...], mode: Mode, tmp_path: Path, probe_folder: Path
) -> None:
    if mode is not PLAIN and (reason := why_not(mode, probe_folder)):
        pytest.skip(
            f"{mode.name} does not work here, the native layer is NOT checked by it: {reason}"
        )
    program = tmp_path / name
    compile_program(HERE / f"test_{name}.c", program, *mode.flags, *defines)
    rounds = ROUNDS[name]
    arguments = [] if rounds is None else [str(rounds[mode is not PLAIN])]
    done = run_program([str(program), *arguments], mode)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


def test_every_program_is_run() -> None:
    assert {path.stem.removeprefix("test_") for path in HERE.glob("test_*.c")} == set(ROUNDS)


def headers() -> list[Path]:
    return sorted(HEADERS.glob("*.h"))


@pytest.mark.parametrize("header", headers(), ids=lambda path: path.name)
@pytest.mark.parametrize(
    "flags", [("-O0", "-pedantic"), ("-O3", "-DNDEBUG")], ids=["debug", "release"]
)
def test_header_compiles_alone(header: Path, flags: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "alone.c"
    # twice: it guards itself; _GNU_SOURCE stands for what Python.h defines in the real build
    source.write_text(f'#include "{header.name}"\n' * 2, encoding="utf-8")
    compile_program(source, tmp_path / "alone.o", "-c", "-D_GNU_SOURCE", *flags)


@pytest.mark.parametrize("header", headers(), ids=lambda path: path.name)
def test_header_knows_no_interpreter(header: Path) -> None:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", header.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"\bPython\.h\b|\b_?Py[A-Z]\w*|\bPY_\w+", code)


def test_there_are_headers() -> None:
    assert {"tg_pool.h", "tg_word.h"} <= {path.name for path in headers()}
