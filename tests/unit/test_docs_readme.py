"""The README's blocks run as they stand, in order, and print what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tokengate
from tokengate.__main__ import build_parser

README = Path(__file__).parent.parent.parent / "README.md"
PACKAGE_ROOT = Path(tokengate.__file__).parent.parent


@pytest.fixture(scope="module")
def text() -> str:
    return README.read_text(encoding="utf-8")


def python_lines(text: str) -> list[str]:
    """The lines of all python blocks, with empty ones for all else, so that line numbers agree."""
    inside = False
    lines = []
    for line in text.splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    return lines


def test_the_blocks_run_and_print_what_they_say(text: str, tmp_path: Path) -> None:
    lines = python_lines(text)
    script = tmp_path / "readme.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    prints = [line for line in lines if line.lstrip().startswith("print(")]
    assert len(prints) > 10
    assert all("  # " in line for line in prints)
    assert done.stdout.splitlines() == [line.partition("  # ")[2] for line in prints]


def test_the_first_screen_has_both_commands_and_the_package(text: str) -> None:
    screen = "\n".join(text.splitlines()[:60])
    for command in ("make wave", "make test", "pip install py-tokengate"):
        assert re.search(rf"^    {command}\b", screen, flags=re.M)


def test_commands_have_the_options_they_are_shown_with(text: str) -> None:
    commands = re.findall(r"^    \.venv/bin/tokengate (.*)$", text, flags=re.M)
    assert commands
    for command in commands:
        build_parser().parse_args(command.split())


def test_where_the_interpreter_lane_is_said_not_to_run_it_does_not(text: str) -> None:
    assert '`lane="interpreter"`, Python 3.14 and newer, with a GIL' in text
    if sys.version_info < (3, 14):
        with pytest.raises(tokengate.LaneUnavailable, match=r"3\.14"):
            tokengate.task_token_guard(lane="interpreter")
