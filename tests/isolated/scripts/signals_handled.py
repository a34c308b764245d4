"""Signals keep arriving, and are handled, while tokens run and the main thread blocks on them."""

import asyncio
import signal

import tokengate

rung = 0


def ring(number: int, frame: object) -> None:
    global rung
    rung += 1


@tokengate.task_token_guard
def work(i: int) -> int:
    return sum(range(i))


async def gathered(count: int) -> "list[int]":
    return await asyncio.gather(*[work(i) for i in range(count)])


signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
expected = [sum(range(i)) for i in range(2_000)]
assert [token.result(20) for token in [work(i) for i in range(2_000)]] == expected
assert list(work.map(range(2_000))) == expected
assert asyncio.run(gathered(2_000)) == expected
tokengate.get_coordinator().stop()
signal.setitimer(signal.ITIMER_REAL, 0)
print("rung" if rung else "never rung")
