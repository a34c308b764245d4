"""The interpreter ends, or forks, while an executor has calls under way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript

ALL = [f"ran {n}" for n in range(10)]


@pytest.mark.parametrize("how", ["waiting", "shut down"])
def test_calls_run_before_the_end(run_script: RunScript, how: str) -> None:
    lines = run_script("executor_exit.py", how).succeeded().lines
    assert sorted(lines) == ALL


def test_what_was_cancelled_does_not_run(run_script: RunScript) -> None:
    lines = run_script("executor_exit.py", "cancelled").succeeded().lines
    assert 1 <= len(lines) < 10


def test_asyncio_run_waits_for_calls(run_script: RunScript) -> None:
    lines = run_script("executor_exit.py", "run").succeeded().lines
    assert lines[-1] == "closed"
    assert sorted(lines[:-1]) == ALL


def test_a_stuck_call_does_not_hold_the_exit(run_script: RunScript) -> None:
    outcome = run_script("executor_exit.py", "stuck")
    assert outcome.code == 0
    assert "in stuck" in outcome.err


def test_submit_after_the_end_is_refused(run_script: RunScript) -> None:
    lines = run_script("executor_exit.py", "late").succeeded().lines
    assert lines[0] == "ran 0"
    assert lines[1].startswith("cannot schedule new futures")


def test_threads_that_a_call_started_are_waited_for(run_script: RunScript) -> None:
    lines = run_script("executor_exit.py", "thread").succeeded().lines
    assert lines == ["closed", "ran 1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork(run_script: RunScript) -> None:
    outcome = run_script("executor_fork.py", flags=("-W", "ignore::DeprecationWarning"))
    assert outcome.succeeded().lines == ["child 0", str([n * n for n in range(10)])]
