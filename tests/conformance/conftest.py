"""Test folders are no packages: what the conformance tests share is loaded by path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

for _name in ("support", "settable"):
    _spec = importlib.util.spec_from_file_location(
        f"conformance_{_name}", Path(__file__).with_name(f"{_name}.py")
    )
    assert _spec is not None
    assert _spec.loader is not None
    _module = sys.modules[f"conformance_{_name}"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)

support: Any = sys.modules["conformance_support"]


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Cases of the standard library that had nothing of ours in hand are counted apart: they say
    nothing, and would fill pages of the summary."""
    if (
        report.skipped
        and isinstance(report.longrepr, tuple)
        and support.UNTOUCHED in report.longrepr[2]
    ):
        return "untouched", "-", "UNTOUCHED"
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says loudly which of the standard library's tests this interpreter comes without."""
    if support.missing:
        terminalreporter.section("standard library's own tests", yellow=True)
        terminalreporter.line(
            f"NOT FOUND in Python {support.VERSION}, so not run: "
            + ", ".join(sorted(support.missing))
        )
