"""The interpreter ends while tokens wait, execute or are stuck: it never hangs, and says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript

# Well under the 10 s of the default stop_timeout: a script that sets a shorter one and takes longer
# than this has not been heard.
SOON = 8.0


def test_waiting_tokens_run_before_the_end(run_script: RunScript) -> None:
    assert run_script("exit_waiting.py").succeeded().lines == ["ran 2000"]


def test_an_executing_function_may_finish(run_script: RunScript) -> None:
    assert run_script("exit_executing.py").succeeded().lines == ["leaving", "finished"]


@pytest.mark.parametrize("how", ["waiting", "sleeping", "spinning"])
def test_a_stuck_function_does_not_hold_the_exit(run_script: RunScript, how: str) -> None:
    outcome = run_script("exit_stuck.py", how)
    assert (outcome.code, outcome.lines) == (0, ["leaving"])
    assert outcome.seconds < SOON
    assert "demo" in outcome.err
    assert re.search(r"\b1,?000 waiting tokens", outcome.err)
    assert re.search(r"\b1 functions? still", outcome.err)
    assert f"in stuck_{how}" in outcome.err  # its Python stack
    assert "Exception" not in outcome.err


@pytest.mark.parametrize(("how", "code"), [("exception", 1), ("sys.exit", 7)])
def test_leaving_early_still_lets_tokens_finish(run_script: RunScript, how: str, code: int) -> None:
    outcome = run_script("exit_by.py", how)
    assert outcome.code == code
    assert outcome.lines == ["ran 11"]
    assert outcome.err.count("Traceback") == (how == "exception")
    assert ("LookupError: the program failed" in outcome.err) == (how == "exception")


def test_os_exit_leaves_at_once(run_script: RunScript) -> None:
    outcome = run_script("exit_by.py", "os._exit")
    assert (outcome.code, outcome.out, outcome.err) == (3, "", "")


def test_several_coordinators_with_stuck_functions(run_script: RunScript) -> None:
    outcome = run_script("exit_many_coordinators.py")
    assert outcome.code == 0
    assert outcome.seconds < SOON
    assert [f"number{i}" in outcome.err for i in range(8)] == [True] * 8
    assert outcome.err.count("in stuck") == 8


def test_function_outlives_its_loop(run_script: RunScript) -> None:
    assert run_script("exit_after_cancelled_run.py").succeeded().lines == ["leaving", "finished"]


def test_loop_of_a_daemon_thread_awaits_tokens(run_script: RunScript) -> None:
    outcome = run_script("exit_daemon_loop.py")
    assert (outcome.code, outcome.lines) == (0, ["leaving"])
    assert outcome.seconds < SOON
    assert "in stuck" in outcome.err


def test_abandoned_functions_return_during_teardown(run_script: RunScript) -> None:
    outcome = run_script("exit_late_return.py")
    assert outcome.code == 0
    assert re.search(r"\b20 functions still", outcome.err)
    assert "Fatal" not in outcome.err
    assert "Exception" not in outcome.err


@pytest.mark.parametrize("before", ["used", "fresh"])
def test_calls_from_exit_handlers_end(run_script: RunScript, before: str) -> None:
    [line] = run_script("exit_call_at_exit.py", before).succeeded().lines
    if before == "used":
        assert line.startswith("CoordinatorStopped: ")
    else:  # whether a thread can still be started depends on the interpreter
        assert line == "worked" or line.startswith("TokenKilled: no worker could be started")


def test_a_thread_that_goes_on_calling(run_script: RunScript) -> None:
    assert run_script("exit_unfinished_thread.py").succeeded().lines == ["CoordinatorStopped"]
