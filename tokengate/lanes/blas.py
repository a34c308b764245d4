"""BLAS and OpenMP in worker processes: workers times threads stay within the CPUs.

A numeric library starts a thread per CPU it sees, in every process; four workers on four CPUs would
run sixteen. So each worker gets ``max(1, cpus // workers)`` of them. Two means, because neither is
enough: environment variables reach libraries that are loaded later, threadpoolctl, where it is
installed, those that are loaded already (a preloaded parent has forked the worker, say).

Self-contained on purpose: it imports nothing of this package, so that a worker can use it without
loading the core.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

__all__ = ["VARIABLES", "BlasBudget", "blas_budget", "limit_blas"]

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What numeric libraries read when they are loaded."""


@dataclass(frozen=True, slots=True)
class BlasBudget:
    """What `limit_blas` did."""

    threads: int
    """At most so many per library in this process."""
    variables: dict[str, int]
    """The environment variables as they are now; below `threads` where somebody wanted fewer."""
    limited: tuple[str, ...]
    """Libraries that were loaded already and are limited now."""
    unlimited: tuple[str, ...]
    """Libraries that were loaded already and still use more, or refused."""
    controlled: bool
    """Whether threadpoolctl is installed; without it loaded libraries stay as they are."""


def blas_budget(workers: int, cpus: int) -> int:
    """Threads for each of that many workers, at least 1. ValueError for numbers below 1."""
    if workers < 1 or cpus < 1:
        raise ValueError(f"workers={workers!r}, cpus={cpus!r}: expected at least 1 of each")
    return max(1, cpus // workers)


def limit_blas(workers: int, cpus: int) -> BlasBudget:
    """Limit the numeric libraries of this process to its share; called in a worker, by any thread.

    workers: processes that share the CPUs. cpus: how many there are for all of them together
    (`tokengate.topology().count`, as the parent knows it). Call it before the first token, and
    again, which takes about a millisecond, once modules have been imported: some libraries do not
    heed the variables. Lasts for the life of the process. A variable that asks for fewer is left
    alone. ValueError for numbers below 1.
    """
    threads = blas_budget(workers, cpus)
    variables: dict[str, int] = {}
    for name in VARIABLES:
        wanted = os.environ.get(name, "").partition(",")[0].strip()  # OpenMP takes one per level
        variables[name] = min(int(wanted), threads) if _is_count(wanted) else threads
        if wanted != str(variables[name]):
            os.environ[name] = str(variables[name])
    try:
        control = importlib.import_module("threadpoolctl")
    except ImportError:
        return BlasBudget(threads, variables, (), (), False)
    limited: list[str] = []
    unlimited: list[str] = []
    # One by one: all at once a library that uses fewer already would be raised to the limit.
    for library in control.ThreadpoolController().lib_controllers:
        told = f"{library.internal_api} ({library.prefix})"
        if library.num_threads is not None and library.num_threads > threads:
            library.set_num_threads(threads)
        now = library.get_num_threads()
        (limited if now is not None and now <= threads else unlimited).append(told)
    return BlasBudget(threads, variables, tuple(limited), tuple(unlimited), True)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0
