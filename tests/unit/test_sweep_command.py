"""``python -m tokengate sweep`` as a user starts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

import tokengate
from tokengate.__main__ import build_parser, main
from tokengate.lanes.availability import lane_report
from tokengate.lanes.catalogue import LANES
from tokengate.profile import load_profile
from tokengate.sweep import command
from tokengate.sweep.measure import Sample
from tokengate.sweep.record import SweepRun
from tokengate.sweep.setting import Setting
from tokengate.wave.progress import ProgressLine

PACKAGE_ROOT = Path(tokengate.__file__).parent.parent
ROOT = Path(__file__).parent.parent.parent
AVAILABLE = [each.lane for each in lane_report() if each.available and each.lane in LANES]
QUICK = [
    *("--workers", "1,2", "--in-flight", "4", "--blocks", "6"),
    *("--seconds", "0.05", "--task", "python", "--seed", "3"),
]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE_ROOT),
            "COLUMNS": "200",
            "XDG_CONFIG_HOME": str(cwd),
            "HOME": str(cwd),
            "APPDATA": str(cwd),
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


LOAD_IT = """
import json, sys
import tokengate
coordinator = tokengate.configure_default(profile=True)
stats = coordinator.stats()
print(json.dumps([stats.profile, stats.lanes["thread"].max_workers]))
"""


def test_a_sweep_over_all_lanes_writes_figures_and_the_profile_of_this_machine(
    tmp_path: Path,
) -> None:
    done = run("-m", "tokengate", "sweep", *QUICK, "--json", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    count = 2 * len(AVAILABLE)
    assert lines[0] == (
        f"TokenGate sweep: {count} settings ({', '.join(AVAILABLE)}) x 6 blocks in random order, "
        "0.05 s each; task python; seed 3"
    )
    rows = [line.lstrip("* ").split()[:4] for line in lines[3 : 3 + count]]
    assert rows == [[lane, n, "4", "auto"] for lane in AVAILABLE for n in ("1", "2")]
    assert sum(line.startswith("*") for line in lines) == len(AVAILABLE)
    assert "failed" not in done.stdout

    data = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert data["blocks"] == {"planned": 6, "complete": 6}
    assert data["failed"] == 0
    for setting in data["settings"]:
        assert len(setting["samples"]) == 6
        assert setting["throughput"]["low"] <= setting["throughput"]["median"]
        assert any(each["tokens"] > 0 for each in setting["samples"])

    [path] = tmp_path.rglob("profiles/*.json")
    assert f"Profile written to {path}: Coordinator(profile=True) loads it" in lines
    profile = load_profile(path)
    assert list(profile.lanes) == AVAILABLE
    loaded = run("-c", LOAD_IT, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) == [str(path), profile.lanes["thread"].workers]


# Python's own Ctrl-C, sent after so many measurements.
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tokengate.__main__ import build_parser, main
from tokengate.sweep import command
measured = command._Screen.measured

def interrupt(self, run):
    measured(self, run)
    if run.measured == int(sys.argv[1]):
        signal.raise_signal(signal.SIGINT)

command._Screen.measured = interrupt
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.same_everywhere
@pytest.mark.parametrize(("measurements", "blocks"), [(1, 0), (5, 2), (15, 7)])
def test_ctrl_c_keeps_the_complete_blocks(measurements: int, blocks: int, tmp_path: Path) -> None:
    words = ["sweep", *QUICK, "--lane", "thread", "--blocks", "99", "--json", "s.json"]
    done = run("-c", INTERRUPTED, str(measurements), *words, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert done.stderr == ""
    data = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert data["interrupted"] is True
    assert data["blocks"] == {"planned": 99, "complete": blocks}
    assert [len(each["samples"]) for each in data["settings"]] == ([blocks] * 2 if blocks else [])
    if blocks == 0:
        assert "before the first block was complete" in done.stdout
    else:
        assert "Stopped early: the figures are of the" in done.stdout
    # a recommendation takes six
    assert len(list(tmp_path.rglob("profiles/*.json"))) == (blocks >= 6)
    assert ("No knee" in done.stdout) == (0 < blocks < 6)


@pytest.mark.same_everywhere
def test_a_profile_goes_where_it_is_told_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = ["sweep", *QUICK, "--lane", "thread", "--task", "io"]
    assert main([*words, "--no-profile"]) == 0
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "mine.json"
    assert main([*words, "--profile", str(path)]) == 0
    assert f"Coordinator(profile={str(path)!r}) loads it" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]
    assert load_profile(path).task == "io"


@pytest.mark.same_everywhere
def test_a_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "sweep.png"
    words = ["sweep", *QUICK, "--lane", "thread", "--no-profile", "--plot", str(path)]
    assert main(words) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"Picture written to {path}" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")
@pytest.mark.same_everywhere
def test_pinning_is_one_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", *QUICK, "--lane", "thread", "--no-profile", "--pin", "core,none"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.lstrip("* ").split()[1:4:2] for line in lines[3:7]] == [
        ["1", "none"],
        ["1", "core"],
        ["2", "none"],
        ["2", "core"],
    ]


@pytest.mark.same_everywhere
def test_a_failing_call_fails_the_sweep_and_leaves_no_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing(*_: object, **__: object) -> Sample:
        return Sample(10, 2, "wait: ValueError: not this one", 1.0, 0.1, 0.2, 0.001, None)

    monkeypatch.setattr(command, "measure", failing)
    path = tmp_path / "mine.json"
    assert main(["sweep", *QUICK, "--lane", "thread", "--profile", str(path)]) == 1
    assert "24 tokens failed, the first with wait: ValueError: not this one" in (
        capsys.readouterr().out
    )
    assert not path.exists()


@pytest.mark.same_everywhere
def test_a_file_that_cannot_be_written_costs_the_status_but_not_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", *QUICK, "--lane", "thread", "--profile", str(tmp_path)]
    assert main(words) == 1
    shown = capsys.readouterr()
    assert "Knee of the thread lane" in shown.out
    assert str(tmp_path) in shown.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--workers 0", "--workers 0: expected 1 to 4,096"),
        ("--workers 2,5000", "--workers 5000: expected 1 to 4,096"),
        ("--workers ,", "--workers: expected whole numbers, as in --workers 2,4"),
        ("--workers two", "argument --workers: invalid"),
        ("--in-flight 0", "--in-flight 0: expected 1 to"),
        ("--workers 8 --in-flight 4", "above the most calls in flight, 4"),
        ("--lane tape", "lane='tape' is not available here; expected 'thread' or"),
        ("--lane auto", "--lane auto: it chooses by itself; expected some of thread"),
        ("--lane ,", "--lane: expected some of thread"),
        ("--pin tight", "--pin tight: expected some of auto, core, none"),
        ("--blocks 5", "--blocks 5: expected at least 6"),
        ("--blocks 0", "must be at least 1, not 0"),
        ("--task sleep", "--task 'sleep': expected python, io, mix"),
        ("--seconds 0", "--seconds 0: expected 0.05 to 3600"),
        ("--seconds nan", "--seconds nan: expected 0.05 to 3600"),
        ("--seconds soon", "argument --seconds: invalid float value: 'soon'"),
        ("--seed x", "argument --seed: invalid int value: 'x'"),
        ("--json no/such/folder/s.json", "no such directory"),
        ("--profile no/such/folder/p.json", "no such directory"),
        ("--profile p.json --no-profile", "not allowed with argument"),
    ],
)
def test_wrong_words_exit_with_2_and_say_why(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", *words.split()])
    assert ended.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="docs are not beside the tests")
def test_every_option_is_told() -> None:
    parser = build_parser()
    [commands] = [each for each in parser._actions if isinstance(each.choices, dict)]
    assert isinstance(commands.choices, dict)
    options = {
        option
        for action in commands.choices["sweep"]._actions
        for option in action.option_strings
        if option not in ("-h", "--help")
    }
    text = (ROOT / "docs/sweep.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    assert set(re.findall(r"--[a-z-]+", "".join(table))) == options


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_line_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(command.time, "monotonic", lambda: now)
    one, two = Setting("thread", 1, 8, "auto"), Setting("thread", 2, 8, "core")
    run = SweepRun((one, two), 10, "mix", 0.5, 1)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    screen = command._Screen(run)
    assert isinstance(screen.line, ProgressLine)
    screen.begins(1, one)
    assert screen.progress() == (
        "0%; block 1/10: thread lane, 1 worker, 8 in flight; Ctrl-C keeps complete blocks"
    )
    now = 110.0
    run.add(one, Sample(1, 0, None, 1.0, 0.1, 0.1, 0.1, None))
    screen.begins(1, two)
    shown = terminal.getvalue().rpartition("\r")[2].rstrip()
    assert shown == (
        "5%, 3:10 left; block 1/10: thread lane, 2 workers, 8 in flight, core; "
        "Ctrl-C keeps complete blocks"
    )
