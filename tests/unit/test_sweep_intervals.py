"""Medians and intervals of known data."""

import random
from statistics import median

import pytest

from tokengate.sweep.intervals import CONFIDENCE, LEAST, Interval, interval, quantile


@pytest.mark.parametrize(
    ("count", "rank"),
    # tables of the sign test at 5 %, two-sided: ranks 1, 1, 1, 2, 2, 2, 4, 6, 10, 40
    [(6, 1), (7, 1), (8, 1), (9, 2), (10, 2), (11, 2), (15, 4), (20, 6), (30, 10), (100, 40)],
)
def test_the_interval_goes_from_the_kth_smallest_to_the_kth_largest(count: int, rank: int) -> None:
    measured = [float(each) for each in range(1, count + 1)]
    random.Random(count).shuffle(measured)
    found = interval(measured)
    assert found == Interval(median(measured), float(rank), float(count + 1 - rank))


@pytest.mark.parametrize("count", range(1, LEAST))
def test_few_measurements_have_a_median_but_no_interval(count: int) -> None:
    assert interval([3.0] * count) == Interval(3.0, None, None)
    assert 2 / 2**count > 1 - CONFIDENCE


def test_the_least_number_has_one() -> None:
    assert 2 / 2**LEAST <= 1 - CONFIDENCE
    assert interval([5, 1, 4, 2, 3, 6]) == Interval(3.5, 1, 6)


@pytest.mark.parametrize("count", [6, 10, 25])
def test_the_true_median_is_inside_as_often_as_promised(count: int) -> None:
    """Of a distribution that is anything but normal: exponential, with a few wild outliers."""
    source = random.Random(11)

    def draw() -> float:
        value = source.expovariate(1.0)
        return value * 1_000 if value > 3 else value

    true_median = 0.6931471805599453  # ln 2
    rounds = 2_000
    inside = 0
    for _ in range(rounds):
        found = interval([draw() for _ in range(count)])
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= true_median <= found.high
    # the seed is fixed: this is a calculation, not a gamble
    assert inside / rounds >= CONFIDENCE - 0.01


def test_quantiles_are_measured_values() -> None:
    hundred = [float(each) for each in range(1, 101)]
    assert [quantile(hundred, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert quantile([7.0], 0.99) == 7.0
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no measurements"):
        interval([])
    with pytest.raises(ValueError, match="no measurements"):
        quantile([], 0.5)
