import json
import os
import re
import signal
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import tokengate
from tokengate import LaneUnavailable
from tokengate.__main__ import main
from tokengate.lanes.availability import lane_report
from tokengate.lanes.catalogue import require_lane
from tokengate.wave import command
from tokengate.wave.mix import ReferenceTask

# The same package in subprocesses as here, wherever this one came from.
PACKAGE_ROOT = Path(tokengate.__file__).parent.parent
ROOT = Path(__file__).parent.parent.parent


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "COLUMNS": "200"}


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


OPTIONS = ["--waves", "4", "--workers", "2", "--baseline", "--json", "w.json"]


def test_a_wave_run_as_a_user_starts_it(tmp_path: Path) -> None:
    done = run("-m", "tokengate", "wave", *OPTIONS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[1].split()[:4] == ["Wave", "Tokens", "OK", "Fail"]
    assert [line.split()[:4] for line in lines[3:7]] == [
        ["1", "4", "4", "0"],
        ["2", "8", "8", "0"],
        ["3", "16", "16", "0"],
        ["4", "32", "32", "0"],
    ]
    assert "Tokens 60: 60 ok, 0 failed" in done.stdout
    assert "Sweet spot: " in done.stdout
    assert "x the plain loop" in done.stdout
    data = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    assert data["totals"]["ok"] == 60
    assert all(wave["task_seconds"] > 0 for wave in data["waves"])
    assert all(wave["plain_seconds"] > 0 for wave in data["waves"])


def test_a_failing_task_is_counted_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @tokengate.task_token_guard(operation_type="fails_at_times")
    def fails_at_times(n: int) -> int:
        if n % 4 == 1:
            raise ValueError("not this one")
        return n

    task = ReferenceTask(
        "fails_at_times", fails_at_times, fails_at_times.__wrapped__, lambda i: (i,)
    )
    monkeypatch.setattr(command, "REFERENCE_TASKS", (task,))
    assert main(["wave", "--sizes", "4,8", "--tasks", "fails_at_times"]) == 1
    shown = capsys.readouterr().out
    assert [line.split()[:4] for line in shown.splitlines()[3:5]] == [
        ["1", "4", "3", "1"],
        ["2", "8", "6", "2"],
    ]
    assert "9 ok, 3 failed" in shown
    assert "3 x fails_at_times: ValueError: not this one" in shown


def test_a_task_mix_and_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["wave", "--max", "8", "--repeat", "2", "--tasks", "hash_chain,cpu_crunch"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "2 waves, each 2 times, 24 tokens; tasks in turn: hash_chain, cpu_crunch" in shown
    assert [line.split()[:2] for line in shown.splitlines()[3:5]] == [["1", "4"], ["2", "8"]]
    assert "Tokens 24: 24 ok, 0 failed" in shown


AVAILABLE = [report.lane for report in lane_report() if report.available]


@pytest.mark.parametrize("lane", [report.lane for report in lane_report()])
def test_a_wave_on_each_lane_there_is(lane: str, tmp_path: Path) -> None:
    done = run("-m", "tokengate", "wave", *OPTIONS, "--lane", lane, cwd=tmp_path)
    if lane not in AVAILABLE:
        with pytest.raises(LaneUnavailable) as refused:
            require_lane(lane)
        assert done.returncode == 2
        assert f"tokengate wave: error: {refused.value}" in " ".join(done.stderr.split())
        return
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Tokens 60: 60 ok, 0 failed" in done.stdout
    data = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    workers = re.fullmatch(
        rf"{lane} lane, (\d) workers? started of at most 2\b.*", data["environment"]["workers"]
    )
    assert workers is not None
    assert 1 <= int(workers[1]) <= 2


# An event loop without signal support, or a parent that ignores SIGINT, must not decide this test.
STARTED_WITH_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tokengate.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a single process on Windows")
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTED_WITH_CTRL_C, *["wave", "--waves", "20", "--json", "w.json"]],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        # Rows come as they are measured: after the third one the run has minutes to go.
        for line in process.stdout:
            lines.append(line)
            if line.split()[:2] == ["3", "16"]:
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == ""
    shown = "".join(lines) + rest
    assert "Stopped early: " in shown
    assert "Sweet spot: " in shown
    data = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    assert data["interrupted"] is True
    assert 3 <= len(data["waves"]) < 20
    assert all(wave["ok"] == wave["tokens"] for wave in data["waves"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("wave --waves 0", "the number of waves must be 1 to 24, not 0"),
        ("wave --max 3", "at least 4 tokens, not 3"),
        ("wave --sizes 8,4", "8 is followed by 4"),
        ("wave --sizes 4,many", "invalid"),
        ("wave --workers 0", "must be at least 1, not 0"),
        ("wave --workers 5000 --lane process", "process_workers=5000: expected 1 to 4096"),
        ("wave --lane tape", "lane='tape' is not available here; expected 'thread' or"),
        ("wave --repeat -1", "must be at least 1, not -1"),
        ("wave --tasks hash_chain,nothing", "unknown task 'nothing'"),
        ("wave --waves 3 --max 8", "not allowed with argument"),
        ("wave --json no/such/folder/w.json", "no such directory"),
        ("nothing", "invalid choice: 'nothing'"),
        ("", "required: command"),
    ],
)
def test_wrong_words_exit_with_2_and_say_why(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_plot_without_matplotlib_says_what_to_install_before_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as ended:
        main(["wave", "--plot", "wave.png"])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert 'pip install "py-tokengate[bench]"' in shown.err
    assert shown.out == ""


def test_plot_writes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "wave.png"
    assert main(["wave", "--waves", "3", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"Picture written to {path}" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_costs_the_status_but_not_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wave", "--waves", "1", "--json", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "Tokens 4: 4 ok" in shown.out
    assert str(tmp_path) in shown.err


def test_matplotlib_is_imported_for_a_plot_only(tmp_path: Path) -> None:
    program = (
        "import sys; from tokengate.__main__ import main; main(['wave', '--waves', '1']); "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert run("-c", program, cwd=tmp_path).returncode == 0


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, *["-m", "tokengate", "wave", "--waves", "8"]],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert errors == ""


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("wave.py", "--waves 2", "Tokens 12: 12 ok, 0 failed"),
        (
            "sweet_spot.py",
            "--no-profile --lane thread --workers 1 --in-flight 1 --blocks 6 --seconds 0.05",
            "Knee of the thread lane: 1 worker, 1 in flight (the best)",
        ),
    ],
)
def test_the_benchmark_from_a_checkout(
    script: str, options: str, said: str, tmp_path: Path
) -> None:
    done = run(str(ROOT / "bench" / script), *options.split(), cwd=tmp_path)
    built = any((ROOT / "tokengate" / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
    if built:
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    else:
        assert done.returncode == 1
        assert "build_ext --inplace" in done.stderr
