"""``_core.pyi`` tells the truth about the compiled core."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import tokengate
from tokengate import Coordinator, Token, _core
from tokengate.current import Settings

ROOT = Path(__file__).parents[2]
STUB = Path(tokengate.__file__).with_name("_core.pyi")


def test_stubtest() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed: the stub is not compared with the core here")
    done = subprocess.run(
        # -P: the core of the package that is installed, not of the bare source beside the tests
        [sys.executable, "-P", "-m", "mypy.stubtest", "tokengate._core"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def stub_docstrings() -> Iterator[tuple[str, str]]:
    """(dotted name, docstring) of all that have one in the stub."""

    def visit(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, str]]:
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(child)
                if text is not None:
                    yield prefix + child.name, text
            if isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.")

    yield from visit(ast.parse(STUB.read_text(encoding="utf-8")), "")


def flat(text: str | None) -> str:
    return " ".join((text or "").split())


def compiled_docstring(name: str) -> str | None:
    found: object = _core
    for part in name.split("."):
        found = getattr(found, part)
    return found.__doc__


def test_docstrings_of_the_stub_are_the_core_s_own() -> None:
    # Lines and paragraphs are others. What Cython makes of a field has no docstring.
    told = {name: flat(text) for name, text in stub_docstrings()}
    assert told == {name: flat(compiled_docstring(name)) or told[name] for name in told}


def test_all_of_a_token_is_documented_for_editors() -> None:
    documented = {name for name, _ in stub_docstrings()}
    public = {f"TokenBase.{name}" for name in vars(_core.TokenBase) if not name.startswith("_")}
    assert public - {"TokenBase.core", "TokenBase.forgive"} <= documented


def test_the_docstring_of_result_is_the_same_where_its_type_is() -> None:
    # Token declares `result` for type checkers alone; at run time it is the compiled one.
    assert "result" not in vars(Token)
    source = Path(inspect.getfile(Token)).read_text(encoding="utf-8")
    declared = [
        ast.get_docstring(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "result"
    ]
    (text,) = declared
    assert flat(text) == flat(_core.TokenBase.result.__doc__)


def test_configure_default_is_typed_with_the_arguments_of_a_coordinator() -> None:
    taken = inspect.signature(Coordinator).parameters
    hints = get_type_hints(Coordinator.__init__)
    assert get_type_hints(Settings) == {name: hints[name] for name in taken}
