"""A million items through `.map`, without ever holding a million of anything.

Usage: python demo/streaming.py [items, default 1000000]

The source is a generator. It is asked for the next item only when one of the `in_flight` places
is free, so memory does not grow with the number of items.
"""

import asyncio
import sys
import time
from collections.abc import Iterator

import psutil

from tokengate import task_token_guard

IN_FLIGHT = 1_000


@task_token_guard(operation_type="checksum")
def checksum(record: bytes) -> int:
    """The work to be done on each item."""
    return sum(record)


class Source:
    """Generates records and remembers how far it got."""

    made = 0

    def records(self, count: int) -> Iterator[bytes]:
        """`count` records, each made when it is asked for."""
        for number in range(count):
            self.made += 1
            yield number.to_bytes(4, "big")


async def main(items: int) -> None:
    """Stream `items` records through `checksum` and watch memory meanwhile."""
    process = psutil.Process()
    before = process.memory_info().rss
    source = Source()
    total = taken = ahead = 0
    start = time.perf_counter()
    async for value in checksum.map(source.records(items), in_flight=IN_FLIGHT):
        ahead = max(ahead, source.made - taken)
        taken += 1
        total += value
    seconds = time.perf_counter() - start
    grown = (process.memory_info().rss - before) / 2**20
    print(f"{taken:,} items in {seconds:.1f} s, {taken / seconds:,.0f} per second, sum {total:,}")
    print(f"the source was never more than {ahead:,} items ahead (in_flight={IN_FLIGHT:,})")
    print(f"memory grew by {grown:.1f} MiB")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
