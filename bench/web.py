"""A FastAPI application under load: its blocking work on TokenGate, or on the framework's own pool.

`python bench/web.py`; README.md beside this file says what is measured and how.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _gate
from _cli import Run, main
from _figures import Figure, Line, Section, Target, ratios
from _harness import Missing, Options, interleave
from _lag import percentile
from _web_app import GUARDED, INSTALLED, PLAIN, POOLED
from _web_load import Clients
from _work import burn, iterations_for

PYTHON = 0.002
IN_FLIGHT = (10, 40, 100, 400)
JUDGED = 100
WARM_UP = 1.0

EXPLANATION = """\
The same FastAPI application on uvicorn, {mine!r} against {theirs!r}; each
request sleeps 5 ms and runs 2 ms of Python. Two server processes live side by side, and one at a
time is loaded, by as many connections as are in flight. Lag: by how much a heartbeat of the
server's own loop, which sleeps 1 ms at a time, came late (p99 of beats). What is seen in the
first second is not counted. Targets are for 100 in flight."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One server under one load: requests a second, the rest in seconds."""

    throughput: float
    p50: float
    p99: float
    lag: Mapping[str, float]
    limit: int
    cuts: int
    cpu: float
    generator: float


class Server:
    """One application process. `Missing` where a package it needs is not installed."""

    def __init__(self, kind: str, iterations: int) -> None:
        for package in ("fastapi", "uvicorn"):
            if importlib.util.find_spec(package) is None:
                raise Missing(f"{package} is not installed: it is in the extra 'bench'")
        _gate.load()
        self._expected = str(burn(iterations)).encode()
        script = str(Path(__file__).with_name("_web_app.py"))
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, script, kind, str(iterations)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._port = int(self._read()["port"])

    def stop(self) -> None:
        """End the process; kill it where it does not end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    async def load(self, connections: int, seconds: float) -> Seen:
        """Load it with so many connections; what was seen after the warm-up."""
        clients = Clients(self._port, connections, self._expected)
        await clients.open()
        try:
            await clients.load(WARM_UP)
            await asyncio.to_thread(self._ask, "begin")
            load = await clients.load(seconds)
            server = await asyncio.to_thread(self._ask, "end")
        finally:
            await clients.close()
        return Seen(
            throughput=load.throughput,
            p50=percentile(load.latencies, 0.5),
            p99=percentile(load.latencies, 0.99),
            lag=server["lag"],
            limit=server["limit"],
            cuts=server["cuts"],
            cpu=server["cpu"] / load.seconds,
            generator=load.cpu / load.seconds,
        )

    def _ask(self, word: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server process ended; why is on its stderr, above")
        return json.loads(line)


@contextlib.contextmanager
def servers(*kinds: str) -> Iterator[dict[str, Server]]:
    """A process for each kind of handler, all with the same work."""
    iterations = iterations_for(PYTHON)
    with contextlib.ExitStack() as stack:
        started = {}
        for kind in kinds:
            started[kind] = Server(kind, iterations)
            stack.callback(started[kind].stop)
        yield started


def run_pair(mine: str, theirs: str, name: str, options: Options) -> Section:
    """Measure `mine` against `theirs` at every number in flight."""
    section = Section(name, EXPLANATION.format(mine=mine, theirs=theirs))
    seconds = options.pick(6, 2)
    with servers(mine, theirs) as started:
        for count in IN_FLIGHT if not options.quick else (JUDGED,):
            seen: dict[str, list[Seen]] = {kind: [] for kind in started}

            def trial(kind: str, count: int = count) -> float:
                one = asyncio.run(started[kind].load(count, seconds))
                seen[kind].append(one)  # noqa: B023 - called within this turn
                return one.throughput

            trials: dict[str, Callable[[], float]] = {
                kind: functools.partial(trial, kind) for kind in started
            }
            interleave(trials, options)
            report(section, count, seen, mine, theirs)
    return section


def report(
    section: Section, count: int, seen: dict[str, list[Seen]], mine: str, theirs: str
) -> None:
    """The table and the figures of one number in flight."""
    judged = count == JUDGED

    def line(what: str, of: Callable[[Seen], float]) -> None:
        section.lines[f"{what}, {count} in flight"] = [
            Line(kind, count, tuple(of(one) * 1e6 for one in each)) for kind, each in seen.items()
        ]

    def against(what: str, of: Callable[[Seen], float], target: Target) -> Figure:
        samples = ratios([of(one) for one in seen[mine]], [of(one) for one in seen[theirs]])
        return Figure(f"{count} in flight: {what}", "x", samples, target if judged else None)

    line("us a request", lambda one: 1 / one.throughput)
    line("us of latency, p99", lambda one: one.p99)
    line("us of lag, p99 of beats", lambda one: one.lag["p99"])
    section.figures += [
        against("throughput", lambda one: one.throughput, Target("at least", 1)),
        against("p99 of latency", lambda one: one.p99, Target("at most", 1)),
        against("p99 of the loop's lag", lambda one: one.lag["p99"], Target("at most", 1 / 3)),
        Figure(
            f"{count} in flight: lag, p99 of all moments",
            "x",
            ratios(*([one.lag["p99_anywhen"] for one in seen[kind]] for kind in (mine, theirs))),
        ),
        Figure("TokenGate's limit at the end", "workers", tuple(o.limit for o in seen[mine])),
    ]
    busiest = max(statistics.median(one.generator for one in each) for each in seen.values())
    section.remarks.append(f"{count} in flight: the load generator used {busiest:.0%} of a CPU")


SECTIONS: dict[str, Run] = {
    "async": functools.partial(run_pair, GUARDED, POOLED, "async"),
    "def": functools.partial(run_pair, INSTALLED, PLAIN, "def"),
}

if __name__ == "__main__":
    raise SystemExit(main(SECTIONS))
