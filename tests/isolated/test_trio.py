"""trio, in a process of its own: importing it changes what hypothesis does in this one."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.isolated.conftest import RunScript


@pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed")
def test_tokens_under_trio(run_script: RunScript) -> None:
    assert run_script("awaited_under_trio.py", flags=()).succeeded().lines == ["refused"]


@pytest.mark.skipif(
    importlib.util.find_spec("trio") is None or importlib.util.find_spec("anyio") is None,
    reason="trio or anyio is not installed",
)
def test_anyio_on_trio(run_script: RunScript) -> None:
    assert run_script("anyio_on_trio.py", flags=()).succeeded().lines == ["as before"]
