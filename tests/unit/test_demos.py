import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tokengate

DEMOS = Path(__file__).parent.parent.parent / "demo"
PACKAGE_ROOT = Path(tokengate.__file__).parent.parent


def run_demo(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(DEMOS / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_wave() -> None:
    rows = [line.split() for line in run_demo("wave.py", "256").splitlines()[1:]]
    assert [(int(tokens), int(ok), int(failed)) for tokens, ok, failed, *_ in rows] == [
        (size, size, 0) for size in (4, 8, 16, 32, 64, 128, 256)
    ]


def test_blocking_io() -> None:
    shown = run_demo("blocking_io.py", "20")
    assert "20 of 20 blocking requests answered" in shown
    beats = re.search(r"the loop beat (\d+) times", shown)
    assert beats is not None
    # The server alone takes 100 ms to answer: ten beats, unless the loop was blocked meanwhile.
    assert int(beats[1]) >= 2


def test_streaming_holds_no_more_than_is_in_flight() -> None:
    shown = run_demo("streaming.py", "20000")
    expected = sum(sum(number.to_bytes(4, "big")) for number in range(20_000))
    assert "20,000 items in " in shown
    assert f"sum {expected:,}" in shown
    ahead = re.search(r"never more than ([\d,]+) items ahead", shown)
    assert ahead is not None
    assert 1 <= int(ahead[1].replace(",", "")) <= 1_000


def test_limits() -> None:
    shown = run_demo("limits.py", "60")
    found = re.search(r"(\d+) of 60 orders placed, (\d+) given up", shown)
    assert found is not None
    assert int(found[1]) + int(found[2]) == 60
    most = re.search(r"at most (\d+) were in the service", shown)
    assert most is not None
    assert 1 <= int(most[1]) <= 10


def test_synchronous(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1\n2\n")
    (tmp_path / "b.py").write_text("1\n2\n3\n")
    shown = run_demo("synchronous.py", str(tmp_path))
    assert "a.py: 2 lines" in shown
    assert "2 files, 5 lines; the longest is b.py" in shown
    assert "as expected: FileNotFoundError" in shown
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert f"{total:,} bytes" in shown


@pytest.mark.parametrize("demo", sorted(path.name for path in DEMOS.glob("*.py")))
def test_every_demo_is_run_here_and_listed_in_the_readme(demo: str) -> None:
    if demo != "web.py":  # test_demo_web.py's
        assert f'run_demo("{demo}"' in Path(__file__).read_text(encoding="utf-8")
    assert f"`{demo}`" in (DEMOS / "README.md").read_text(encoding="utf-8")
