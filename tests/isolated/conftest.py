"""Runs the scripts in processes of their own, for what a test cannot do to its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol

import pytest

import tokengate

SCRIPTS = Path(__file__).parent / "scripts"
PACKAGE_ROOT = Path(tokengate.__file__).parent.parent
TIMEOUT = 60.0  # seconds after which a script counts as hung


@dataclass(frozen=True)
class Outcome:
    """How a script ended, and after how many seconds."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it printed, line by line."""
        return self.out.splitlines()

    def succeeded(self) -> Outcome:
        """Itself, where the script ended with 0 and complained of nothing."""
        if self.code != 0 or self.err:
            pytest.fail(f"ended with {self.code}\n{self.out}{self.err}", pytrace=False)
        return self


class RunScript(Protocol):
    def __call__(self, name: str, *arguments: str, flags: tuple[str, ...] = ...) -> Outcome: ...


def _abort(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ends it and its children; faulthandler prints the stacks of all their threads, if it can."""
    if sys.platform == "win32":
        process.kill()
        return process.communicate()
    os.killpg(process.pid, signal.SIGABRT)
    try:
        return process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


@pytest.fixture
def run_script() -> RunScript:
    """Runs one script to its end. One that hangs is aborted and fails the test with its stacks."""

    def run(name: str, *arguments: str, flags: tuple[str, ...] = ("-W", "error")) -> Outcome:
        begun = monotonic()
        with subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *flags, str(SCRIPTS / name), *arguments],
            env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the children it forks can be ended with it
        ) as process:
            try:
                out, err = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                out, err = _abort(process)
                pytest.fail(f"{name} hung.\nstdout:\n{out}\nstderr:\n{err}", pytrace=False)
        return Outcome(process.returncode, out, err, monotonic() - begun)

    return run
