"""Waves of decorated functions: submit a batch at once, gather it, double the batch.

Usage: python demo/wave.py [largest wave, default 16384]
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import Callable
from typing import Any

from tokengate import Token, task_token_guard


@task_token_guard(operation_type="cpu_crunch", tags={"weight": "light"})
def cpu_crunch(n: int) -> int:
    """Sum the primes below `n`: an ordinary function, but every call of it is a token."""
    return sum(k for k in range(2, n) if all(k % d for d in range(2, int(k**0.5) + 1)))


@task_token_guard(operation_type="string_ops", tags={"weight": "light"})
def string_transform(seed: int) -> str:
    """Reverse, upper-case and replace."""
    return f"{seed:a>300}"[::-1].upper().replace("A", "4")


@task_token_guard(operation_type="data_transform", tags={"weight": "medium"})
def data_sort(size: int) -> list[int]:
    """Sort."""
    return sorted(n * 7_919 % 100_003 for n in range(size))


@task_token_guard(operation_type="hash_compute", tags={"weight": "heavy"})
def hash_chain(seed: str, iterations: int) -> str:
    """Hash again and again."""
    for _ in range(iterations):
        seed = hashlib.sha256(seed.encode()).hexdigest()
    return seed


CALLS: list[Callable[[int], Token[Any]]] = [
    lambda i: cpu_crunch(60 + i % 25),
    lambda i: string_transform(31 * i),
    lambda i: data_sort(400 + i % 300),
    lambda i: hash_chain(f"wave_seed_{i}", 120 + i % 80),
]


def submit_batch(target: int) -> list[Token[Any]]:
    """Call the four in turn; every call returns its token at once."""
    return [CALLS[i % len(CALLS)](i) for i in range(target)]


async def main(largest: int) -> None:
    """Double the batch until it is `largest`."""
    print("tokens      ok  failed  seconds   tokens/s")
    target = 4
    while target <= largest:
        start = time.perf_counter()
        tokens = submit_batch(target)
        results = await asyncio.gather(*tokens, return_exceptions=True)
        seconds = time.perf_counter() - start
        failed = sum(isinstance(result, BaseException) for result in results)
        print(f"{target:6} {target - failed:7} {failed:7} {seconds:8.3f} {target / seconds:10,.0f}")
        target *= 2


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 16_384))
