"""What the interpreter lane leaves behind when it is started and closed again and again."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path

import tokengate
from _cli import main
from _figures import Figure, Section, Target
from _harness import Missing, Options
from tokengate.lanes.availability import check_interpreter

WORKERS = 2
CYCLES = 25

EXPLANATION = """\
Memory of this process, resident, after the lane was started and closed again so often, two
interpreters each time; before that five times to warm up. An interpreter takes 2.5 MB."""


def run(options: Options) -> Section:
    """The one figure."""
    available, why = check_interpreter()
    if not available:
        raise Missing(f"the interpreter lane does not run here: {why}")
    noop = importlib.import_module("_interpreter_work").interpreter_noop
    found = Section("interpreters started and closed", EXPLANATION)
    left = left_behind(noop)
    what = f"{CYCLES} times started and closed"
    found.figures.append(Figure(what, "MB left", (left,), Target("at most", 2.5)))
    return found


def left_behind(noop: tokengate.GuardedFunction[[], None]) -> float:
    """Megabytes."""

    def cycles(count: int) -> None:
        for _ in range(count):
            with (
                tokengate.Coordinator(interpreter_workers=WORKERS) as coordinator,
                tokengate.use(coordinator),
            ):
                for token in [noop() for _ in range(20)]:
                    token.result()
        gc.collect()

    cycles(5)
    before = resident()
    cycles(CYCLES)
    return (resident() - before) / 1e6


def resident() -> int:
    """Bytes of this process that are in memory."""
    with Path("/proc/self/smaps_rollup").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))


if __name__ == "__main__":
    raise SystemExit(main({"interpreter_memory": run}))
