import pytest

from tokengate.wave import plan


def test_the_default_run_has_131068_tokens() -> None:
    sizes = plan.doubling(plan.DEFAULT_WAVES)
    assert sizes[0] == 4
    assert sizes[-1] == 65_536
    assert len(sizes) == 15
    assert sum(sizes) == 131_068


@pytest.mark.parametrize("waves", [0, -1, plan.MAX_WAVES + 1])
def test_an_impossible_number_of_waves_is_refused(waves: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {plan.MAX_WAVES}, not {waves}"):
        plan.doubling(waves)


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(4, (4,)), (7, (4,)), (8, (4, 8)), (100, (4, 8, 16, 32, 64)), (128, (4, 8, 16, 32, 64, 128))],
)
def test_doubling_up_to_a_largest_wave(most: int, sizes: tuple[int, ...]) -> None:
    assert plan.doubling_up_to(most) == sizes


def test_a_largest_wave_below_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 tokens, not 3"):
        plan.doubling_up_to(3)


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [((), "no wave sizes"), ((0, 4), "at least one"), ((4, 8, 8), "8 is followed by 8")],
)
def test_senseless_sizes_are_refused(sizes: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        plan.checked(sizes)


def test_rising_sizes_are_taken_as_they_are() -> None:
    assert plan.checked([1, 10, 1_000]) == (1, 10, 1_000)
