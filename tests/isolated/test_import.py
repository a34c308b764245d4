"""Importing the package, in the modes an interpreter can be run in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript

MODES = [
    ("-W", "error"),
    ("-W", "error", "-X", "dev"),
    ("-W", "error", "-OO"),
    ("-W", "error", "-b", "-b"),
]


@pytest.mark.parametrize("flags", MODES, ids=" ".join)
def test_import_is_silent_and_starts_nothing(run_script: RunScript, flags: tuple[str, ...]) -> None:
    assert run_script("import_clean.py", flags=flags).succeeded().lines == ["clean"]


def test_import_in_a_thread_first(run_script: RunScript) -> None:
    assert run_script("import_in_thread.py").succeeded().lines == ["2"]


def test_import_twice_works_or_is_refused(run_script: RunScript) -> None:
    [line] = run_script("import_again.py").succeeded().lines
    assert line in ("works", "refused")


def test_configure_default(run_script: RunScript) -> None:
    assert run_script("configure_default.py").succeeded().lines == ["configured"]
