"""100,000 tokens whose time is over before it is their turn."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

from _figures import Figure, Section, Target
from _harness import Options, interleave
from _lag import percentile
from _policy import Crowd, changed, guarded, new_coordinator

TIMEOUT = 1.0

EXPLANATION = """\
100,000 tokens with timeout=1 of an operation with limit=1, whose one place is taken until all of
them have ended, gathered. Late: from a token's deadline, its creation and that second, to its end,
both by its own time stamps; a token that ended too early counts as failed."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """One run: tokens that did not end as they must, functions that ran, and p99 lateness."""

    wrong: int
    ran: int
    p99: float
    longest: float


async def expire(count: int) -> Expiry:
    """Let `count` tokens expire."""
    crowd = Crowd()
    opened, taken = threading.Event(), threading.Event()

    def place(first: bool) -> None:
        with crowd.member():
            if first:
                taken.set()
                opened.wait()

    async with new_coordinator() as coordinator:
        from tokengate import TokenState

        holder = guarded(coordinator, place, "bench.expiring", limit=1)
        first = holder(True)
        try:
            await asyncio.to_thread(taken.wait)
            call = changed(holder, timeout=TIMEOUT)
            tokens = [call(False) for _ in range(count)]
            await asyncio.gather(*tokens, return_exceptions=True)
        finally:
            opened.set()
        await first
    late: list[float] = []
    for token in tokens:
        created, _, _, finished = token.timestamps
        late.append((finished - created) / 1e9 - TIMEOUT)
    wrong = sum(
        token.state is not TokenState.EXPIRED or each < 0
        for token, each in zip(tokens, late, strict=True)
    )
    return Expiry(wrong, crowd.entered - 1, percentile(late, 0.99), max(late))


def run(options: Options) -> Section:
    """Measure the row of the tokens that expire while they wait."""
    section = Section("expiry", EXPLANATION)
    count = options.pick(100_000, 20_000)
    seen: list[Expiry] = []

    def trial() -> float:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            seen.append(runner.run(expire(count)))
        return seen[-1].p99

    interleave({"expiry": trial}, options)
    section.figures += [
        Figure(
            f"of {count:,} tokens, not EXPIRED, or too early; all rounds",
            "tokens",
            (sum(each.wrong for each in seen),),
            Target("at most", 0),
        ),
        Figure(
            "of them, functions that ran; all rounds",
            "functions",
            (sum(each.ran for each in seen),),
            Target("at most", 0),
        ),
        Figure("late, p99", "ms", tuple(each.p99 * 1e3 for each in seen), Target("at most", 50)),
        Figure("the latest", "ms", tuple(each.longest * 1e3 for each in seen)),
    ]
    return section
