"""The interpreter lane where it cannot run: said when it is asked for. On every Python."""

from __future__ import annotations

import sys
import sysconfig

import pytest

import tokengate
from tokengate import Coordinator, Executor, LaneUnavailable, task_token_guard
from tokengate.lanes.availability import check_interpreter

RUNS = sys.version_info >= (3, 14) and not sysconfig.get_config_var("Py_GIL_DISABLED")


def test_it_says_what_it_needs():
    available, why = check_interpreter()
    assert available == RUNS
    if sys.version_info < (3, 14):
        assert "needs CPython 3.14 or newer" in why
    elif not RUNS:
        assert "free-threaded" in why


@pytest.mark.skipif(RUNS, reason="the lane is available here")
def test_it_is_refused_wherever_it_is_asked_for():
    guarded = task_token_guard(print)
    for ask in (
        lambda: task_token_guard(lane="interpreter"),
        lambda: guarded.options(lane="interpreter"),
        lambda: Executor(lane="interpreter"),
    ):
        with pytest.raises(LaneUnavailable, match="lane='interpreter' is not available here: "):
            ask()


def test_its_number_of_workers_is_checked():
    with pytest.raises(ValueError, match="interpreter_workers=0"):
        Coordinator(interpreter_workers=0)
    with pytest.raises(TypeError, match="interpreter_workers='2'"):
        Coordinator(interpreter_workers="2")


def test_the_stand_in_has_every_public_name():
    import ast
    from pathlib import Path

    path = Path(tokengate.__file__).parent / "lanes" / "standin.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            assert ast.literal_eval(node.value) == tokengate.__all__
            break
    else:
        pytest.fail("the stand-in has no __all__")
