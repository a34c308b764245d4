"""docs/topology.md against the code: fields, defaults of pinning, findings of the doctor."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from tokengate import Topology, topology
from tokengate.machine.pinning import AUTO, is_pinned

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/topology.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="docs are not beside the tests")


def rows(first: str) -> list[list[str]]:
    """The table whose first column is called that."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |")) + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_every_field_is_explained() -> None:
    told = [row[0].strip("`") for row in rows("field")]
    assert told == [field.name for field in dataclasses.fields(Topology)]


def test_what_auto_does() -> None:
    told = {row[0].strip("`"): row[1] == "yes" for row in rows("lane")}
    assert told == dict(AUTO)
    for lane, pinned in told.items():
        assert is_pinned("auto", lane) == pinned
        assert is_pinned("core", lane)
        assert not is_pinned("none", lane)


def test_findings_are_those_there_are() -> None:
    made: dict[str, str] = {}
    for path in (ROOT / "tokengate/doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                level, name = (ast.literal_eval(each) for each in node.args[:2])
                made[name] = level
    assert {row[0].strip("`"): row[1] for row in rows("finding")} == made


def test_the_example_runs() -> None:
    [block] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    values: dict[str, object] = {}
    exec(block.replace("print(", "shown = ("), values)
    assert values["shown"] is True
    assert values["found"] == topology()
