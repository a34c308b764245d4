"""Forking with tokens in flight: the child starts afresh, the parent does not notice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

# From 3.12 Python itself warns of forking with threads.
FLAGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


@pytest.mark.parametrize(
    "look",
    [
        "by_state",
        "by_result",
        "by_gather",
        "by_first_failure",
        "by_as_completed",
        "by_map",
        "by_await",
        "by_asyncio_gather",
        "by_gather_on_loop",
        "by_ending",
        "by_stats",
        "by_use_first",
    ],
)
def test_inherited_tokens_read_killed(run_script: RunScript, look: str) -> None:
    outcome = run_script("fork_inherited.py", look, flags=FLAGS)
    assert outcome.succeeded().lines == ["child 0", "parent done"]


@pytest.mark.parametrize("how", ["exit", "return", "stop"])
def test_fork_in_a_guarded_function(run_script: RunScript, how: str) -> None:
    outcome = run_script("fork_in_worker.py", how, flags=FLAGS)
    assert outcome.succeeded().lines == ["child 0", "parent done"]


def test_fork_on_a_loop(run_script: RunScript) -> None:
    outcome = run_script("fork_on_loop.py", flags=FLAGS)
    assert outcome.succeeded().lines == ["child 0", "parent done"]


def test_used_before_many_forks(run_script: RunScript) -> None:
    assert run_script("fork_preload.py", flags=FLAGS).succeeded().lines == ["True"]


def test_multiprocessing(run_script: RunScript) -> None:
    outcome = run_script("fork_multiprocessing.py", flags=FLAGS)
    assert outcome.succeeded().lines == ["[2, 4, 6, 8, 10, 12]", "0"]


def test_fork_while_everything_is_busy(run_script: RunScript) -> None:
    assert run_script("fork_while_busy.py", flags=FLAGS).succeeded().lines == ["True"]


def test_fork_while_stopping(run_script: RunScript) -> None:
    outcome = run_script("fork_while_stopping.py", flags=FLAGS)
    assert outcome.succeeded().lines == ["child 0", "parent done"]


def test_fork_with_very_many_operations(run_script: RunScript) -> None:
    outcome = run_script("fork_many_operations.py", flags=FLAGS)
    assert outcome.succeeded().lines == ["child 0", "parent done"]
