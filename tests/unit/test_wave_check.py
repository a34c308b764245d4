from collections import Counter

from tokengate.wave.check import MOST_KINDS, OTHER_FAILURES, ResultChecker
from tokengate.wave.mix import ReferenceTask, TaskMix


class Calls:
    def __init__(self) -> None:
        self.made: Counter[int] = Counter()
        # Index 0, 1, 2, 3, 4 calls triple(0), (1), (1), (2), (2).
        task = ReferenceTask("triple", self.triple, self.triple, lambda i: ((i + 1) // 2,))
        self.mix = TaskMix([task])

    def triple(self, n: int) -> int:
        self.made[n] += 1
        return 3 * n


async def test_right_results_are_ok() -> None:
    calls = Calls()
    verdict = await ResultChecker(calls.mix).check([0, 3, 3, 6])
    assert (verdict.ok, verdict.failed) == (4, 0)


async def test_a_wrong_result_is_a_failure() -> None:
    verdict = await ResultChecker(Calls().mix).check([0, 3, 4, None])
    assert (verdict.ok, verdict.failed) == (2, 2)
    assert verdict.failures == {"triple: wrong result": 2}


async def test_an_exception_is_a_failure_and_says_what_it_was() -> None:
    results = [0, ValueError("too much"), KeyboardInterrupt(), 6]
    verdict = await ResultChecker(Calls().mix).check(results)
    assert (verdict.ok, verdict.failed) == (2, 2)
    assert verdict.failures == {
        "triple: ValueError: too much": 1,
        "triple: KeyboardInterrupt": 1,
    }


async def test_a_flood_of_different_failures_is_told_apart_up_to_a_limit() -> None:
    verdict = await ResultChecker(Calls().mix).check([ValueError(n) for n in range(100)])
    assert verdict.failed == 100
    assert verdict.failures[OTHER_FAILURES] == 100 - MOST_KINDS
    assert len(verdict.failures) == MOST_KINDS + 1


async def test_each_expected_value_is_computed_once() -> None:
    calls = Calls()
    checker = ResultChecker(calls.mix)
    await checker.check([0, 3, 3, 6])
    await checker.check([0, 3, 3, 6, 6])
    assert calls.made == {0: 1, 1: 1, 2: 1}


async def test_results_of_plain_calls_need_no_computing() -> None:
    calls = Calls()
    checker = ResultChecker(calls.mix)
    checker.learn([0, 3, 3, 6])
    verdict = await checker.check([0, 3, 3, 7])
    assert (verdict.ok, verdict.failed) == (3, 1)
    assert not calls.made
