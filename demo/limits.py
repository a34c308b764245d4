"""A fragile service: ten connections, one order per customer at a time, and no patience.

Usage: python demo/limits.py [orders, default 1000]

`place_order` may be in the service ten times at once and once per customer; whoever has waited for
half a second goes without, and ordering again takes precedence over reports.
"""

import asyncio
import sys
import threading
import time
from collections import Counter

from tokengate import TokenExpired, get_coordinator, task_token_guard

CONNECTIONS = 10


class Service:
    """Counts who is inside, and would break if they were more than ten, or one customer twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: Counter[str] = Counter()
        self.most = 0

    def call(self, who: str, seconds: float) -> None:
        """Keep a connection for some time."""
        with self._lock:
            self._inside[who] += 1
            self.most = max(self.most, self._inside.total())
            assert self._inside[who] == 1, f"two orders of {who} at once"
        time.sleep(seconds)
        with self._lock:
            self._inside[who] -= 1


service = Service()


@task_token_guard(
    "order", limit=CONNECTIONS, timeout=0.5, priority=1, key=lambda customer, n: customer
)
def place_order(customer: str, n: int) -> str:
    """Order something; blocks for as long as the service takes."""
    service.call(customer, 0.01)
    return f"order {n} of {customer}"


@task_token_guard("report")
def report(lines: int) -> int:
    """What else there is to do."""
    return sum(i * i for i in range(lines))


async def main(orders: int) -> None:
    """Order far more than the service can take in time."""
    reports = [report(1_000) for _ in range(100)]
    placed = [place_order(f"customer {n % 50}", n) for n in range(orders)]
    outcomes = await asyncio.gather(*placed, return_exceptions=True)
    await asyncio.gather(*reports)

    done = sum(isinstance(outcome, str) for outcome in outcomes)
    late = sum(isinstance(outcome, TokenExpired) for outcome in outcomes)
    figures = get_coordinator().stats().operations["order"]
    print(f"{done} of {orders} orders placed, {late} given up after half a second")
    print(f"at most {service.most} were in the service at once")
    print(f"they waited {figures.wait.p50 * 1e3:.0f} ms in the median, {figures.expired} expired")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000))
