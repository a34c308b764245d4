"""docs/testing.md: the suite that its blocks make passes as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tokengate.testing import leftovers

PAGE = Path(__file__).parent.parent.parent / "docs/testing.md"

pytest_plugins = ["pytester"]
pytestmark = [
    pytest.mark.skipif(not PAGE.is_file(), reason="the page is not beside the tests"),
    pytest.mark.same_everywhere,
]


def blocks() -> dict[str, str]:
    """File name, as the first line says, and text of each block."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", text, flags=re.M | re.S)
    assert len(found) == text.count("```python")
    return dict(found)


@pytest.mark.parametrize("as_plugin", [False, True])
def test_the_blocks_are_a_suite_that_passes(pytester: pytest.Pytester, as_plugin: bool) -> None:
    files = blocks()
    assert sorted(files) == ["conftest.py", "prices.py", "test_fresh.py", "test_inline.py"]
    if as_plugin:
        line = re.search(r"`(pytest_plugins = .*)` in", PAGE.read_text(encoding="utf-8"))
        assert line is not None
        files["conftest.py"] = line[1]
    for name, text in files.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-W", "error", timeout=100)
    tests = sum(text.count("def test_") for text in files.values())
    assert tests == 8
    result.assert_outcomes(passed=tests)


def test_the_message_is_the_one_shown(pytester: pytest.Pytester) -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = [line.strip() for line in text.splitlines() if line.startswith("        ")]
    shown = shown[shown.index("ERROR at teardown of test_leaves") :]
    for name, block in blocks().items():
        (pytester.path / name).write_text(block, encoding="utf-8")
    pytester.makepyfile(
        """
import asyncio
import threading
from prices import fetch, network
from tokengate import TokenState

def test_leaves(fresh_coordinator, monkeypatch):
    async def main():
        held = threading.Event()
        monkeypatch.setattr(network, "price", lambda item: held.wait(0.5))
        first = fetch("apple")
        while first.state is not TokenState.EXECUTING:
            pass
        fresh_coordinator.pause()
        fetch("pear")
    asyncio.run(main())
"""
    )
    result = pytester.runpytest_subprocess(
        "-p", "no:asyncio", "-W", "error", "-k", "test_leaves", timeout=100
    )
    result.stdout.fnmatch_lines([f"*{line.replace('[', '[[]')}*" for line in shown])


def test_the_grace_is_a_few_seconds() -> None:
    assert "a few seconds' grace" in PAGE.read_text(encoding="utf-8")
    assert 2 <= leftovers.GRACE <= 10
