"""The end of a program that has used interpreters: it comes, whatever runs there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tokengate.lanes.availability import check_interpreter

if not check_interpreter()[0]:
    pytest.skip(check_interpreter()[1], allow_module_level=True)

HERE = Path(__file__).parent
HEAD = """
import os, sys, time, tokengate
sys.path.insert(0, {here!r})
import interpreter_functions as work
tokengate.get_coordinator().stop_timeout = 0.2
def begin(token):
    while token.state < tokengate.TokenState.EXECUTING:
        time.sleep(0.001)
    time.sleep(0.1)  # the state comes before the first instruction over there
    return token
"""


def run(body):
    code = HEAD.format(here=str(HERE)) + body
    command = [sys.executable, "-W", "error", "-c", code]
    # from here: a folder with the bare source in it would come before the installed package
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60)


def test_idle_interpreters_are_closed():
    done = run("print(work.add(1, 2).result())")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_what_functions_print_is_there():
    done = run("work.say('from there').result()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "from there\n", "")


@pytest.mark.parametrize("call", ["spin()", "sleep(1000)", "swallow(os.devnull, 10**9)"])
def test_stuck_functions_do_not_keep_it(call):
    done = run(f"begin(work.{call}); sys.exit(3)")
    assert done.returncode == 3
    assert "1 functions still run, abandoned" in done.stderr
    assert "interpreter 1" in done.stderr
    assert "Warning" not in done.stderr


def test_c_code_that_keeps_the_interpreter_to_itself_is_told_and_left():
    done = run("begin(work.count_in_c(10**13))")
    assert done.returncode == 1
    assert "C code in interpreter 1 does not return" in done.stderr


def test_threads_of_functions_are_waited_for(tmp_path):
    path = tmp_path / "path"
    done = run(f"work.start_thread({str(path)!r}, 1.5).result()")
    assert (done.returncode, done.stderr) == (0, "")
    assert path.exists()


def test_programs_can_be_started_and_the_process_lane_used_meanwhile():
    done = run(
        """
import subprocess
assert work.add(1, 2).result() == 3
assert subprocess.run([sys.executable, "-c", "print(4)"], capture_output=True).stdout == b"4\\n"
print(work.add.options(lane="process")(2, 2).result(), work.add(3, 3).result())
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "4 6\n", "")
