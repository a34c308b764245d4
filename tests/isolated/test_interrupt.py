"""Ctrl-C and other signals: a blocked main thread hears them, and nothing is left half-done."""

from __future__ import annotations

import importlib.util
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

LOOPS = [
    "asyncio",
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
        ),
    ),
]
BLOCKED = ["result", "result_with_timeout", "gather", "as_completed", "map_iterated"]


@pytest.mark.parametrize("where", BLOCKED)
def test_main_thread_blocks_on_stuck_functions(run_script: RunScript, where: str) -> None:
    outcome = run_script("interrupt_blocked.py", where)
    assert (outcome.code, outcome.lines) == (0, ["interrupted"])
    assert "still run" in outcome.err  # the exit after it, which does not hang either


@pytest.mark.parametrize("where", ["stop", "leaving_with"])
def test_main_thread_blocks_in_stop(run_script: RunScript, where: str) -> None:
    outcome = run_script("interrupt_blocked.py", where)
    assert (outcome.code, outcome.lines) == (0, ["interrupted"])
    assert "Traceback" not in outcome.err


def test_uncaught_ends_the_process_as_for_any_program(run_script: RunScript) -> None:
    outcome = run_script("interrupt_blocked.py", "result", "again")
    assert (outcome.code, outcome.lines) == (-signal.SIGINT, ["interrupted"])
    assert outcome.err.count("KeyboardInterrupt") == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_during_asyncio_run(run_script: RunScript, loop: str) -> None:
    lines = run_script("interrupt_run.py", loop).succeeded().lines
    assert lines == ["interrupted", "{'CANCELLED'} True"]


def test_while_the_interpreter_ends(run_script: RunScript) -> None:
    outcome = run_script("interrupt_exit.py")
    assert outcome.lines == ["leaving"]
    assert "KeyboardInterrupt" in outcome.err
    assert "Fatal" not in outcome.err


def test_handler_that_raises_while_a_worker_is_started(run_script: RunScript) -> None:
    outcome = run_script("interrupt_starting.py")
    # not judged by stderr: where the handler strikes in a destructor Python itself tells of it
    assert (outcome.code, outcome.lines) == (0, ["rung"]), outcome.err


def test_handled_signals_disturb_nothing(run_script: RunScript) -> None:
    assert run_script("signals_handled.py").succeeded().lines == ["rung"]
