"""The package in sub-interpreters: refused cleanly, or working; the main one is never harmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript

# importlib.util and others warn of what CPython itself does in sub-interpreters; not ours to judge.
FLAGS: tuple[str, ...] = ()


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_import_in_a_subinterpreter(run_script: RunScript, kind: str, order: str) -> None:
    lines = run_script("subinterpreter.py", kind, order, flags=FLAGS).succeeded().lines
    here = ["main 2"] if order == "before" else []
    assert lines in [[*here, word, word, "main 2"] for word in ("refused", "works")]
