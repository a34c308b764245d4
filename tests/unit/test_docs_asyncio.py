"""docs/asyncio.md: its blocks run as they stand, in order, and print what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tokengate

PAGE = Path(__file__).parent.parent.parent / "docs/asyncio.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_the_blocks_run_and_print_what_they_say(tmp_path: Path) -> None:
    inside = False
    lines = []  # with empty ones for all that is no code, so that line numbers agree
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    script = tmp_path / "page.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(tokengate.__file__).parent.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    prints = [line for line in lines if line.lstrip().startswith("print(")]
    assert len(prints) > 10
    assert all("  # " in line for line in prints)
    assert done.stdout.splitlines() == [line.partition("  # ")[2] for line in prints]
