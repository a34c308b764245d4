"""The four reference tasks: plain synchronous functions with nothing but the decorator.

They differ on purpose - arithmetic, text, sorting, hashing; some 20, 120, 320 and 90 us of pure
Python each on one machine of 2023 - and each depends on its arguments alone, so that every
result can be checked. The plain function beneath a guarded one is its ``__wrapped__``.
"""

from __future__ import annotations

import hashlib
import random
import string
from math import isqrt
from typing import Any

from tokengate import Token, task_token_guard

from .mix import ReferenceTask

# Seeded generators make the tasks repeatable; nothing here is a secret (S311).


@task_token_guard(operation_type="cpu_crunch", tags={"weight": "light"})
def cpu_crunch(n: int) -> int:
    """Sum of the primes below `n`, by trial division up to the square root."""
    total = 0
    for candidate in range(2, n):
        for divisor in range(2, isqrt(candidate) + 1):
            if candidate % divisor == 0:
                break
        else:
            total += candidate
    return total


@task_token_guard(operation_type="string_ops", tags={"weight": "light"})
def string_transform(seed: int) -> str:
    """300 random letters, reversed and upper-cased, with A, E and I turned into 4, 3 and 1."""
    rng = random.Random(seed)  # noqa: S311
    text = "".join(rng.choice(string.ascii_letters) for _ in range(300))
    return text[::-1].upper().replace("A", "4").replace("E", "3").replace("I", "1")


@task_token_guard(operation_type="data_transform", tags={"weight": "medium"})
def data_sort(size: int) -> list[int]:
    """`size` random integers from 0 to 100,000, sorted."""
    rng = random.Random(size)  # noqa: S311
    return sorted(rng.randint(0, 100_000) for _ in range(size))


@task_token_guard(operation_type="hash_compute", tags={"weight": "heavy"})
def hash_chain(seed: str, iterations: int) -> str:
    """SHA-256 of `seed`, hashed again until `iterations` rounds are done; in hexadecimal."""
    digest = seed.encode()
    for _ in range(iterations):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


REFERENCE_TASKS: tuple[ReferenceTask[Token[Any]], ...] = (
    ReferenceTask(
        "cpu_crunch",
        cpu_crunch,
        cpu_crunch.__wrapped__,
        lambda i: (60 + i % 25,),
    ),
    ReferenceTask(
        "string_transform",
        string_transform,
        string_transform.__wrapped__,
        lambda i: (31 * i,),
    ),
    ReferenceTask(
        "data_sort",
        data_sort,
        data_sort.__wrapped__,
        lambda i: (400 + i % 300,),
    ),
    ReferenceTask(
        "hash_chain",
        hash_chain,
        hash_chain.__wrapped__,
        lambda i: (f"wave_seed_{i}", 120 + i % 80),
    ),
)
"""In the order of their turns: token i of a wave is number ``i % 4``, called as shown."""
