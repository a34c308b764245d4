"""What mypy and pyright say about the package, and about code that uses it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tokengate"
CASES = Path(__file__).parent / "cases"
ACCEPTED = CASES / "accepted.py"
REJECTED = CASES / "rejected.py"
MARK = "# error"


class Finding(NamedTuple):
    """An error that a checker reports; lines from 1."""

    file: Path
    line: int
    text: str


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A tool of this environment, in the root of the checkout."""
    scripts = Path(sys.executable).parent
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # there is a newer pyright: so what
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: the types are not checked here")


def mypy() -> Iterator[Finding]:
    needs("mypy")
    done = run("-m", "mypy", "--strict", "--output=json", *map(str, (PACKAGE, ACCEPTED, REJECTED)))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    for line in done.stdout.splitlines():
        if not line.startswith("{"):
            continue  # the summary
        found = json.loads(line)
        if found["severity"] == "error":
            text = f"{found['message']} [{found['code']}]"
            yield Finding((ROOT / found["file"]).resolve(), found["line"], text)


def pyright() -> Iterator[Finding]:
    needs("pyright")
    version = run("-m", "pyright", "--version")
    if version.returncode != 0:
        pytest.skip(f"pyright does not start here: {version.stderr.strip()[-200:]}")
    done = run(
        *("-m", "pyright", "--outputjson", "--pythonpath", sys.executable),
        *map(str, (PACKAGE, ROOT / "demo", ACCEPTED, REJECTED)),
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] > len(list(PACKAGE.rglob("*.py")))
    for found in report["generalDiagnostics"]:
        if found["severity"] == "error":
            text = f"{found['message']} [{found.get('rule', '')}]"
            start = found["range"]["start"]["line"] + 1
            yield Finding(Path(found["file"]).resolve(), start, text)


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def findings(request: pytest.FixtureRequest) -> list[Finding]:
    """All that one checker finds."""
    checker: Callable[[], Iterator[Finding]] = request.param
    return list(checker())


def shown(findings: list[Finding]) -> str:
    return "\n".join(f"{file}:{line}: {text}" for file, line, text in findings)


def test_the_package(findings: list[Finding]) -> None:
    in_package = [found for found in findings if found.file.parent != CASES]
    assert not in_package, shown(in_package)


def test_what_users_may_write(findings: list[Finding]) -> None:
    in_file = [found for found in findings if found.file == ACCEPTED]
    assert not in_file, shown(in_file)


def test_mistakes_are_found(findings: list[Finding]) -> None:
    lines = REJECTED.read_text(encoding="utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith(MARK)}
    assert marked
    in_file = [found for found in findings if found.file == REJECTED]
    reported = {found.line for found in in_file}
    missed = "\n".join(f"not found: {number}: {lines[number - 1]}" for number in marked - reported)
    unmarked = [found for found in in_file if found.line not in marked]
    assert reported == marked, f"{missed}\n{shown(unmarked)}"
