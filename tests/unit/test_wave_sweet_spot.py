import pytest

from tokengate.wave.sweet_spot import find_sweet_spot


def test_the_smallest_wave_within_five_percent_of_the_best() -> None:
    sweet = find_sweet_spot({4: [500.0], 8: [940.0], 16: [951.0], 32: [1000.0], 64: [700.0]})
    assert (sweet.tokens, sweet.throughput) == (16, 951.0)
    assert (sweet.best_tokens, sweet.best_throughput) == (32, 1000.0)


def test_the_plateau_runs_to_the_largest_wave_with_ninety_percent_of_the_best() -> None:
    sweet = find_sweet_spot({4: [1000.0], 8: [960.0], 16: [905.0], 32: [899.0], 64: [100.0]})
    assert (sweet.tokens, sweet.plateau_end, sweet.dips) == (4, 16, ())


def test_a_dip_in_the_plateau_is_named() -> None:
    sweet = find_sweet_spot({4: [1000.0], 8: [800.0], 16: [950.0], 32: [850.0], 64: [910.0]})
    assert (sweet.tokens, sweet.plateau_end, sweet.dips) == (4, 64, (8, 32))


def test_medians_over_repeats_decide() -> None:
    # Wave 4 had one lucky repeat, wave 8 one unlucky one.
    sweet = find_sweet_spot({4: [500.0, 510.0, 5000.0], 8: [1000.0, 10.0, 1010.0]})
    assert (sweet.tokens, sweet.throughput) == (8, 1000.0)


def test_of_equally_fast_waves_the_smaller_is_the_best() -> None:
    sweet = find_sweet_spot({64: [700.0], 16: [700.0], 32: [700.0]})
    assert (sweet.tokens, sweet.best_tokens, sweet.plateau_end) == (16, 16, 64)


def test_a_single_wave_is_its_own_sweet_spot() -> None:
    sweet = find_sweet_spot({4: [10.0]})
    assert (sweet.tokens, sweet.plateau_end, sweet.dips) == (4, 4, ())


def test_no_waves_have_none() -> None:
    with pytest.raises(ValueError, match="no waves"):
        find_sweet_spot({})
