"""`lane="auto"` against lanes chosen by hand, on work of both kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import tokengate
from _figures import Figure, Section, Target, ratios
from _harness import Options, gil_enabled, interleave, progress
from tokengate import Coordinator, task_token_guard
from tokengate.wave import tasks

SETTLED = 12  # bursts in a row after which no operation has moved
PATIENCE = 150  # bursts

EXPLANATION = """\
Seven operations at once: the four reference tasks of the wave, and three that wait, for 5 ms, for
2 ms with some JSON to read and write, and for a file. Bursts of all of them are gathered on a
loop, by each contestant on a coordinator of its own: all on threads, all on processes, the
reference tasks on processes and the others on threads, the same with the shortest of them on
threads, and lane="auto", which has had bursts before until it moved nothing any more. The figure is
the rate of auto against the best of the others, round by round."""

TEXT = json.dumps({str(i): list(range(5)) for i in range(20)})
FILE = Path(__file__)


def ask_database() -> int:
    """Waits, and does next to nothing."""
    time.sleep(0.005)
    return 1


def ask_service() -> str:
    """Waits, then has an answer to read."""
    time.sleep(0.002)
    return json.dumps(json.loads(TEXT), sort_keys=True)


def read_file() -> int:
    """As much as there is."""
    return len(FILE.read_bytes())


def _auto(name: str, fn: Any) -> Any:
    return task_token_guard(f"bench.auto.{name}", lane="auto")(getattr(fn, "__wrapped__", fn))


crunch = _auto("cpu_crunch", tasks.cpu_crunch)
string = _auto("string_transform", tasks.string_transform)
sort = _auto("data_sort", tasks.data_sort)
chain = _auto("hash_chain", tasks.hash_chain)
database = _auto("database", ask_database)
service = _auto("service", ask_service)
file = _auto("file", read_file)

COMPUTE, WAIT = (crunch, string, sort, chain), (database, service, file)
CHOICES: dict[str, Callable[[Any], str]] = {
    "all on threads": lambda guard: "thread",
    "all on processes": lambda guard: "process",
    "reference tasks on processes": lambda guard: "thread" if guard in WAIT else "process",
    "the same, the shortest on threads": lambda guard: (
        "thread" if guard in WAIT or guard is crunch else "process"
    ),
    "auto": lambda guard: "auto",
}


class Contestant:
    """All operations on one coordinator, each in the lane that was chosen for it."""

    def __init__(self, coordinator: Coordinator, choice: Callable[[Any], str], share: int) -> None:
        self.coordinator = coordinator
        self._share = share
        self._call = {
            guard: guard.options(lane=choice(guard), coordinator=coordinator)
            for guard in (*COMPUTE, *WAIT)
        }

    def burst(self) -> float:
        """Tokens a second."""
        return asyncio.run(self._burst())

    def rate(self) -> float:
        """The same, the median of three bursts."""
        return median([self.burst() for _ in range(3)])

    async def _burst(self) -> float:
        call = self._call
        start = time.perf_counter()
        found: list[Any] = []
        for i in range(self._share):
            found += [
                call[crunch](60 + i % 25),
                call[string](31 * i),
                call[sort](400 + i % 300),
                call[chain](f"wave_seed_{i}", 120 + i % 80),
            ]
            if i % 3 == 0:
                found += [call[each]() for each in WAIT]
        await asyncio.gather(*found)
        return len(found) / (time.perf_counter() - start)

    def lanes(self) -> dict[str, str]:
        """Operation -> where its calls go."""
        return {name: each.lane for name, each in self.coordinator.stats().operations.items()}

    def settle(self) -> None:
        """Bursts until none of its operations moves any more."""
        before, same = self.lanes(), 0
        for number in range(PATIENCE):
            progress(f"auto settles: burst {number}")
            self.burst()
            same = same + 1 if self.lanes() == before else 0
            before = self.lanes()
            if same >= SETTLED and number >= 3 * SETTLED:
                return


def run(options: Options) -> Section:
    """The figure, and where auto has put each operation."""
    found = Section('lane="auto" beside lanes chosen by hand', EXPLANATION)
    if not gil_enabled():
        found.skipped.append("without a GIL no operation moves")
        return found
    share = options.pick(300, 100)
    with contestants(share) as all_of_them:
        for contestant in all_of_them.values():
            contestant.burst()
        auto = all_of_them["auto"]
        auto.settle()
        samples = interleave(
            {name: each.rate for name, each in all_of_them.items()},
            options,
        )
        for name, values in samples.items():
            note = ""
            if name == "auto":
                gone = [each for each, lane in auto.lanes().items() if lane != "thread"]
                note = "on processes: " + ", ".join(each.rpartition(".")[2] for each in gone)
            found.figures.append(Figure(name, "tokens/s", values, note=note))
        by_hand = {name: values for name, values in samples.items() if name != "auto"}
        best = max(by_hand, key=lambda name: median(by_hand[name]))
        found.figures.append(
            Figure(
                "auto against the best of them",
                "x",
                ratios(samples["auto"], by_hand[best]),
                Target("at least", 0.9),
                note=f"against: {best}",
            )
        )
    return found


@contextlib.contextmanager
def contestants(share: int) -> Iterator[dict[str, Contestant]]:
    """By name; each with two worker processes at most."""
    with contextlib.ExitStack() as stack:
        yield {
            name: Contestant(
                stack.enter_context(tokengate.Coordinator(process_workers=2)), choice, share
            )
            for name, choice in CHOICES.items()
        }
