"""The protocols of the native layer, checked exhaustively by spin; README.md says what is modelled.

Each model is searched completely in every shape listed here. It must also be able to fail: for each
line it can leave out (a macro that starts with BREAK_) the search must find what goes wrong then.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# A search takes seconds at most; one that reaches this has outgrown what fits into a test run.
HUNG = 120.0

# Searched completely, without a finding.
SHAPES: dict[str, dict[str, str]] = {
    "pool": {
        "hand-off": "TOKENS=3 WORKERS=2 LIMIT=2 BLOCKING",
        "spurious": "TOKENS=2 WORKERS=2 LIMIT=2 BLOCKING SPURIOUS=2",
        "abandon": "TOKENS=3 WORKERS=1 LIMIT=1 RECORDS=2 BLOCKING CANCEL",
        "no-thread": "TOKENS=2 WORKERS=2 LIMIT=1 RECORDS=2 BLOCKING CANCEL START_FAILS=1",
        "nested": "TOKENS=3 WORKERS=1 LIMIT=1 RECORDS=2 NESTED",
        "fewer": "TOKENS=2 WORKERS=2 LIMIT=2 BLOCKING RESIZE=1",
        "more": "TOKENS=2 WORKERS=1 LIMIT=1 RECORDS=2 BLOCKING RESIZE=2",
        "guest": "TOKENS=2 WORKERS=2 LIMIT=1 BLOCKING GUESTS=1",
    },
    "word": {
        "ends": "KILL HELP READ",
        "drop": "DETACH HELP",
        "tell": "LOOP_WAITERS=2 HELP",
        "bar": "BAR KILL DETACH",
        "bar-help": "BAR HELP",
        "watch": "WATCH=2",
        "watch-kill": "WATCH=1 KILL",
        "watch-help": "WATCH=1 HELP",
    },
    "inbox": {"inbox": ""},
    "gated": {
        "cancel": "TOKENS=3 CANCEL",
        "raise": "TOKENS=3 LIMIT=1 CONFIGURE=2",
        "lower": "TOKENS=3 LIMIT=2 CONFIGURE=1",
        "pause": "TOKENS=3 PAUSE",
        "recall": "TOKENS=3 RECALL",
    },
}

# What is left out, and the shape in which that is found.
OMISSIONS: dict[str, dict[str, str]] = {
    "pool": {
        "ABANDON_SILENT": "nested",
        "CHOOSE_RING_ONLY": "hand-off",
        "FUTEX_BLIND": "hand-off",
        "GUEST_UNCOUNTED": "guest",
        "IDLE_LATER": "hand-off",
        "LATE_UNCOUNTED": "abandon",
        "NEVER_ARRIVES": "hand-off",
        "NO_CHAIN": "hand-off",
        "NO_LIMIT": "abandon",
        "NO_PERMIT": "hand-off",
        "PARK_STORES": "hand-off",
        "PARK_WHEN_CLOSING": "hand-off",
        "RESIZE_SILENT": "more",
        "START_FAILED_SILENT": "no-thread",
        "TAKE_RING_ONLY": "hand-off",
        "WAKE_MANY": "hand-off",
    },
    "word": {
        "ADMITTED_DROPS": "drop",
        "ANNOUNCE_STORES": "tell",
        "BACK_DROPS": "bar",
        "BLOCKER_TRUSTS": "tell",
        "CALL_DROPPED": "ends",
        "DROP_FIRST": "drop",
        "ENDER_TELLS": "watch",
        "FINISH_KEEPS_RUNNING": "ends",
        "FLAGS_EARLY": "tell",
        "HELPER_KEEPS": "drop",
        "HELPER_LEAVES_LINKED": "drop",
        "OUTCOME_LATE": "ends",
        "REFILL_DROPS": "drop",
        "RETURN_LOOKS_FIRST": "watch",
        "RETURN_UNSEEN": "ends",
        "RETURN_UNTOLD": "watch",
        "SPLIT": "ends",
        "UNLINK_BLIND": "drop",
        "VERDICT_UNGUARDED": "ends",
        "WAITER_TRUSTS": "tell",
        "WAITER_UNGUARDED": "tell",
        "WATCHER_TRUSTS": "watch",
    },
    "inbox": dict.fromkeys(
        (
            "ARMED_READ_FIRST",
            "BELL_CLEARED_LATE",
            "CLEAR_HELD",
            "CLEAR_LATE",
            "PUSH_STORES",
            "SLICE_FORGOTTEN",
            "TAKE_LOADS",
            "WAKE_DROPPED",
        ),
        "inbox",
    ),
    "gated": {
        "ABANDONED_FREES": "cancel",
        "ASKED_FIRST": "cancel",
        "BAR_UNREFRESHED": "raise",
        "DROP_UNASKED": "cancel",
        "FREED_SILENT": "cancel",
        "GATED_HELD": "cancel",
        "GIVE_BACK_KEEPS": "lower",
        "NOT_ASKED": "cancel",
        "NO_RECHECK": "cancel",
    },
}


@dataclass(frozen=True)
class Finding:
    """What a search has come to. error: the assertion that can fail; empty if none can."""

    error: str
    states: int


def tool(name: str) -> str:
    """Path of a program that spin's searches need; fails the test where it is missing."""
    found = shutil.which(name)
    assert found is not None, f"spin is here, but {name} is not: install a C compiler (gcc)"
    return found


@pytest.fixture(scope="session")
def spin() -> str:
    """Path of spin; skips only where there is none, for one that does not work must be noticed."""
    found = shutil.which("spin")
    if found is None:
        pytest.skip("no spin: the models are NOT checked here (apt-get install spin)")
    return found


def run(command: list[str], folder: Path) -> str:
    """What the command printed; fails the test where it could not do its work."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def search(spin: str, model: str, macros: Iterable[str], folder: Path) -> Finding:
    """Searches all states of a model built with these macros, up to the first error.

    The search is compiled without optimisation: gcc takes longer to optimise it than it runs.
    """
    folder.mkdir()
    defines = [f"-D{macro}" for macro in macros]
    generated = run([spin, "-a", *defines, str(HERE / f"{model}.pml")], folder)
    assert "rror" not in generated, generated
    run([tool("gcc"), "-O0", "-w", "-DSAFETY", "-o", "search", "pan.c"], folder)
    # -b: a path longer than -m counts as an error instead of being passed over; -w only grows
    told = run([str(folder / "search"), "-b", "-m10000", "-w20"], folder)
    assert "out of memory" not in told, told
    assert "depth limit" not in told, told
    errors = re.search(r"errors: (\d+)", told)
    states = re.search(r"(\d+) states, stored", told)
    assert errors is not None, told
    assert states is not None, told
    if int(errors[1]) == 0:
        assert "Search not completed" not in told, told
        return Finding("", int(states[1]))
    error = re.search(r"pan:1: (.*) \(at depth \d+\)", told)
    assert error is not None, told
    return Finding(error[1], int(states[1]))


def at_once(jobs: dict[str, Callable[[], Finding]]) -> dict[str, Finding]:
    """Runs the jobs, as many at a time as there are CPUs."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        futures = {name: pool.submit(job) for name, job in jobs.items()}
        return {name: future.result() for name, future in futures.items()}


@pytest.mark.parametrize("model", SHAPES)
def test_protocol_holds(model: str, spin: str, tmp_path: Path) -> None:
    def job(shape: str, macros: str) -> Callable[[], Finding]:
        return lambda: search(spin, model, macros.split(), tmp_path / shape)

    found = at_once({shape: job(shape, macros) for shape, macros in SHAPES[model].items()})
    assert {shape: one.error for shape, one in found.items() if one.error} == {}
    # one that gets stuck at once would hold, too
    assert all(one.states > 1000 for one in found.values()), found


@pytest.mark.parametrize("model", OMISSIONS)
def test_each_omission_is_found(model: str, spin: str, tmp_path: Path) -> None:
    def job(macro: str, shape: str) -> Callable[[], Finding]:
        macros = [*SHAPES[model][shape].split(), f"BREAK_{macro}"]
        return lambda: search(spin, model, macros, tmp_path / macro)

    found = at_once({macro: job(macro, shape) for macro, shape in OMISSIONS[model].items()})
    missed = [macro for macro, one in found.items() if "assertion violated" not in one.error]
    assert missed == []


@pytest.mark.parametrize("model", SHAPES)
def test_every_omission_is_listed(model: str) -> None:
    text = (HERE / f"{model}.pml").read_text(encoding="utf-8")
    assert set(re.findall(r"ifn?def BREAK_(\w+)", text)) == set(OMISSIONS[model])


def test_every_model_is_checked() -> None:
    models = {path.stem for path in HERE.glob("*.pml")}
    assert models == set(SHAPES) == set(OMISSIONS)
