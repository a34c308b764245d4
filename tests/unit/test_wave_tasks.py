import hashlib
import string
from itertools import pairwise

from tokengate.wave.tasks import (
    REFERENCE_TASKS,
    cpu_crunch,
    data_sort,
    hash_chain,
    string_transform,
)


def test_cpu_crunch_sums_the_primes_below_n() -> None:
    crunch = cpu_crunch.__wrapped__
    assert [crunch(n) for n in (0, 2, 3, 10, 30)] == [0, 0, 2, 17, 129]


def test_string_transform_gives_300_changed_characters() -> None:
    text = string_transform.__wrapped__(31)
    assert len(text) == 300
    assert set(text) <= (set(string.ascii_uppercase) - set("AEI")) | set("431")
    assert set("431") <= set(text)
    assert string_transform.__wrapped__(31) == text
    assert string_transform.__wrapped__(62) != text


def test_data_sort_gives_sorted_numbers_in_range() -> None:
    numbers = data_sort.__wrapped__(500)
    assert len(numbers) == 500
    assert all(a <= b for a, b in pairwise(numbers))
    assert min(numbers) >= 0
    assert max(numbers) <= 100_000
    assert data_sort.__wrapped__(500) == numbers


def test_hash_chain_iterates_sha256() -> None:
    once = hashlib.sha256(b"seed").digest()
    assert hash_chain.__wrapped__("seed", 1) == once.hex()
    assert hash_chain.__wrapped__("seed", 3) == (
        hashlib.sha256(hashlib.sha256(once).digest()).hexdigest()
    )


def test_calls_of_a_wave_are_those_of_the_reference_run() -> None:
    calls = {task.name: [task.arguments(i) for i in (0, 1, 30, 400)] for task in REFERENCE_TASKS}
    assert calls == {
        "cpu_crunch": [(60,), (61,), (65,), (60,)],
        "string_transform": [(0,), (31,), (930,), (12_400,)],
        "data_sort": [(400,), (401,), (430,), (500,)],
        "hash_chain": [
            ("wave_seed_0", 120),
            ("wave_seed_1", 121),
            ("wave_seed_30", 150),
            ("wave_seed_400", 120),
        ],
    }


def test_operations_are_named_as_in_the_reference_run() -> None:
    assert [task.operation for task in (cpu_crunch, string_transform, data_sort, hash_chain)] == [
        "cpu_crunch",
        "string_ops",
        "data_transform",
        "hash_compute",
    ]


async def test_tokens_give_what_the_plain_functions_give() -> None:
    for task in REFERENCE_TASKS:
        arguments = task.arguments(7)
        token = task.submit(*arguments)
        assert await token == task.plain(*arguments)
        assert token.run_time > 0
