"""CPU outside the GIL: password hashes, and matrix products that are multi-threaded themselves."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import time
from collections.abc import Callable
from typing import Any

import _gate
from _clients import lowest, raced
from _figures import Figure, Line, Section, Target, ratios
from _harness import Options
from _policy import Crowd
from _pools import GATE, POOL_SIZES, Pool, gate, pools

CALLS = 64
SECONDS = 0.020
SIDE = 512

EXPLANATION = """\
64 password hashes (PBKDF2, some 20 ms each) and as many products of 512 x 512 matrices made at
once, turn about. Both run outside the GIL, and the products on several threads of numpy's own,
so the loop stays free however many run, while they take the CPUs from each other. Microseconds
a call, each run with a new loop and a new pool. The best pool is the one with the lowest median.
Peak: the most calls that were in such a function at once; finding that out is in it."""


def digest(turns: int) -> bytes:
    """What a password check does: CPU for a while, without the GIL."""
    return hashlib.pbkdf2_hmac("sha256", b"correct horse", b"battery staple", turns)


def turns_for(seconds: float) -> int:
    """Turns of `digest` that take so long on an idle machine: the best of some probes."""
    probe = 10_000
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        digest(probe)
        best = min(best, time.perf_counter() - start)
    return round(probe * seconds / best)


def products(skipped: list[str]) -> Callable[[], Any] | None:
    """A function that multiplies two matrices, or None, with a word in `skipped`, for no numpy."""
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        skipped.append("numpy is not installed (pip install numpy): the hashes alone, no products")
        return None
    matrix = numpy.random.default_rng(1).random((SIDE, SIDE))
    return lambda: float((matrix @ matrix)[0, 0])


def run(options: Options) -> Section:
    """Measure the row of the calls that burn CPU outside the GIL."""
    section = Section("native-work", EXPLANATION)
    _gate.load()
    from tokengate.machine import usable_cpus

    turns = turns_for(SECONDS)
    kinds: list[tuple[str, Callable[[], Any]]] = [("bench.hash", lambda: digest(turns))]
    multiply = products(section.skipped)
    if multiply is not None:
        kinds.append(("bench.product", multiply))
    expected = [function() for _, function in kinds] * CALLS
    peaks: list[int] = []

    async def compute(pool: Pool) -> float:
        crowd = Crowd()

        def counted(function: Callable[[], Any]) -> Any:
            with crowd.member():
                return function()

        async with pool.open() as opened:
            calls = [(opened.bind(counted, name), function) for name, function in kinds]
            start = time.perf_counter()
            made = [call(function) for _ in range(CALLS) for call, function in calls]
            results = await asyncio.gather(*made)
            took = time.perf_counter() - start
        if results != expected:
            raise AssertionError(f"{pool.name} came back with wrong results")
        if pool.name == GATE:
            peaks.append(crowd.peak)
        return took / len(expected)

    sizes = (2, 4) if options.quick else (2, *POOL_SIZES)
    samples = raced([gate(), *pools(*sizes, default=not options.quick)], compute, options)
    section.lines["us a call"] = [
        Line(name, len(expected), tuple(each * 1e6 for each in values))
        for name, values in samples.items()
    ]
    best = lowest(samples)
    section.figures += [
        Figure(
            "CPU without the GIL, against the best pool",
            "x the throughput",
            ratios(samples[best], samples[GATE]),
            Target("at least", 0.95),
            note=f"best is {best}",
        ),
        Figure(
            "most such calls at once, of all rounds",
            "calls",
            (max(peaks),),
            Target("at most", len(usable_cpus())),
            note="may be no more than the usable CPUs",
        ),
    ]
    return section
