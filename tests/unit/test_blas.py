"""Thread budgets of numeric libraries in worker processes: what they are told, what they then do."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokengate.lanes import blas

numeric = pytest.mark.skipif(
    importlib.util.find_spec("numpy") is None or importlib.util.find_spec("threadpoolctl") is None,
    reason="numpy or threadpoolctl is not installed: budgets are NOT tested on a real library here",
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in blas.VARIABLES:
        monkeypatch.setenv(name, "")  # so that what is set here is undone, too


@pytest.mark.parametrize(
    ("workers", "cpus", "threads"),
    [(1, 1, 1), (1, 8, 8), (2, 8, 4), (3, 8, 2), (8, 8, 1), (9, 8, 1)],
)
def test_workers_times_threads_stay_within_the_cpus(workers: int, cpus: int, threads: int) -> None:
    assert blas.blas_budget(workers, cpus) == threads
    assert workers * threads <= max(cpus, workers)


@pytest.mark.parametrize(("workers", "cpus"), [(0, 4), (-1, 4), (2, 0)])
def test_numbers_that_cannot_be(workers: int, cpus: int) -> None:
    with pytest.raises(ValueError, match=f"workers={workers}, cpus={cpus}: expected at least 1"):
        blas.limit_blas(workers, cpus)


@pytest.mark.parametrize(
    ("set_to", "expected"),
    [("", "2"), ("16", "2"), ("1", "1"), ("2", "2"), ("8,4", "2"), ("many", "2"), ("0", "2")],
)
def test_variables(monkeypatch: pytest.MonkeyPatch, set_to: str, expected: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    budget = blas.limit_blas(2, 4)
    assert os.environ["OMP_NUM_THREADS"] == expected
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2"
    assert budget.threads == 2
    assert budget.variables["OMP_NUM_THREADS"] == int(expected)


def test_without_threadpoolctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # importing it fails
    budget = blas.limit_blas(4, 4)
    assert (budget.controlled, budget.limited) == (False, ())
    assert os.environ["OMP_NUM_THREADS"] == "1"


class Library:
    """As threadpoolctl shows one."""

    def __init__(self, name: str, threads: int, obeys: bool = True) -> None:
        self.internal_api, self.prefix, self.obeys = "openblas", name, obeys
        self.num_threads = threads

    def set_num_threads(self, threads: int) -> None:
        if self.obeys:
            self.num_threads = threads

    def get_num_threads(self) -> int:
        return self.num_threads


def test_loaded_libraries_are_lowered_and_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    many, few, deaf = Library("many", 64), Library("few", 1), Library("deaf", 64, obeys=False)
    found: Any = SimpleNamespace(lib_controllers=[many, few, deaf])
    control = SimpleNamespace(ThreadpoolController=lambda: found)
    monkeypatch.setitem(sys.modules, "threadpoolctl", control)  # type: ignore[arg-type]
    budget = blas.limit_blas(2, 8)
    assert (many.num_threads, few.num_threads, deaf.num_threads) == (4, 1, 64)
    assert budget.limited == ("openblas (many)", "openblas (few)")
    assert budget.unlimited == ("openblas (deaf)",)


CHILD = """
import json, runpy, sys
early = sys.argv[1] == "early"
if early:
    import numpy  # as in a preloaded parent
limit_blas = runpy.run_path(sys.argv[2])["limit_blas"]
budget = limit_blas(2, 4)
import numpy
import threadpoolctl
numpy.ones((64, 64)) @ numpy.ones((64, 64))
pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
print(json.dumps({"limited": budget.limited, "pools": pools, "core": "tokengate" in sys.modules}))
"""


@numeric
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_real_library_in_a_process_of_its_own(when: str) -> None:
    """It believes in 16 CPUs; two workers on four get two threads each, loaded before or after."""
    environment = {**os.environ, **dict.fromkeys(blas.VARIABLES, "16")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, when, str(Path(blas.__file__))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["pools"], "numpy has no library that threadpoolctl knows"
    assert max(told["pools"]) <= 2
    assert bool(told["limited"]) == (when == "early")
    assert not told["core"], "a worker needs nothing of the package for it"
