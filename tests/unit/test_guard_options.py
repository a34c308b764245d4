"""`.options` and operations: views for some calls; names shared, redefined, contradicted."""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import (
    Coordinator,
    GuardedFunction,
    LaneUnavailable,
    get_coordinator,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator

_serial = itertools.count()


@pytest.fixture
def name() -> str:
    """An operation nobody else has named."""
    return f"operation {next(_serial)} of {__name__}"


def add(x: int, y: int = 1) -> int:
    return x + y


# -- options ---------------------------------------------------------------------------------------


async def test_a_view_is_the_same_function_and_operation(
    coordinator: Coordinator, name: str
) -> None:
    guarded = task_token_guard(name)(add)
    view: Any = guarded.options()
    assert isinstance(view, GuardedFunction)
    view = guarded.options()
    assert view is not guarded
    assert view.operation == name
    assert view.__wrapped__ is add
    assert view.__name__ == "add"
    assert inspect.signature(view) == inspect.signature(add)
    assert inspect.iscoroutinefunction(view)
    assert inspect.iscoroutinefunction(view.__call__)
    assert await view(1) == 2
    assert await view.map([1, 2], y=5) == [6, 7]
    assert coordinator.stats().operations[name].completed == 3


async def test_tags_of_a_view_show_on_its_tokens_only(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, {"weight": "heavy", "team": "a"})(add)
    view = guarded.options(tags={"weight": "light", "team": "b"})
    for _ in range(2):
        tokens = [guarded(1), view(1), view.options()(1), guarded(1)]
        assert [await token for token in tokens] == [2] * 4
        assert [token.tags["team"] for token in tokens] == ["a", "b", "b", "a"]
        assert tokens[1].tags == {"weight": "light", "team": "b"}
    (token,) = await view.map([1], tokens=True)
    assert token.tags["team"] == "b"
    assert (await view.map([1], tokens=True))[0].result() == 2
    assert coordinator.stats().operations[name].completed == 10
    assert view.options(tags={})(1).tags == {}
    await coordinator.drain()


async def test_tags_of_a_view_that_was_called_first(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, {"team": "a"})(add)
    first, second = guarded.options(tags={"team": "b"})(1), guarded(1)
    assert await first + await second == 4
    assert (first.tags, second.tags) == ({"team": "b"}, {"team": "a"})


def test_tags_of_a_view_are_checked(name: str) -> None:
    guarded = task_token_guard(name)(add)
    with pytest.raises(ValueError, match="huge"):
        guarded.options(tags={"weight": "huge"})
    with pytest.raises(TypeError):
        guarded.options(tags="heavy")  # type: ignore[arg-type]


async def test_a_coordinator_of_its_own(
    coordinator: Coordinator, new_coordinator: NewCoordinator, name: str
) -> None:
    other, third = new_coordinator(thread_workers=1), new_coordinator(thread_workers=1)
    guarded = task_token_guard(name)(get_coordinator)
    view = guarded.options(coordinator=other)
    assert await guarded() is coordinator
    await view()
    await view.options(tags={"team": "b"})()
    assert await view.starmap([(), ()]) is not None
    with use(third):
        await view()
        assert await guarded() is third
    assert other.stats().operations[name].completed == 5
    assert third.stats().operations[name].completed == 1
    assert coordinator.stats().operations[name].completed == 1
    moved = view.options(coordinator=third)
    await moved()
    assert third.stats().operations[name].completed == 2


async def test_submit_goes_to_its_own_coordinator_whatever_the_view_says(
    coordinator: Coordinator, new_coordinator: NewCoordinator, name: str
) -> None:
    other = new_coordinator(thread_workers=1)
    view = task_token_guard(name)(add).options(coordinator=other)
    assert await coordinator.submit(view, 1) == 2
    assert coordinator.stats().operations[name].completed == 1
    assert name not in other.stats().operations


@pytest.mark.parametrize("wrong", [5, "tokengate", Coordinator, object()])
def test_a_coordinator_must_be_one(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError):
        task_token_guard(name)(add).options(coordinator=wrong)


def test_a_lane_must_be_one(name: str) -> None:
    guarded = task_token_guard(name)(add)
    assert guarded.options(lane="thread") is not None
    for wrong in ("cluster", "", 5):
        with pytest.raises(LaneUnavailable):
            guarded.options(lane=wrong)  # type: ignore[arg-type]


def test_unknown_options_and_positional_ones_are_refused(name: str) -> None:
    guarded = task_token_guard(name)(add)
    with pytest.raises(TypeError):
        guarded.options(limit=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        guarded.options({"weight": "heavy"})  # type: ignore[call-arg]


async def test_a_view_of_a_method_binds_no_further_but_one_of_the_function_does(
    coordinator: Coordinator,
) -> None:
    class Box:
        def __init__(self, x: int) -> None:
            self.x = x

        @task_token_guard
        def get(self, y: int) -> int:
            return self.x + y

        light = get.options(tags={"weight": "light"})

    assert await Box(1).light(2) == 3
    assert await Box(1).get.options(tags={})(2) == 3
    assert await Box.get.options()(Box(5), 2) == 7


# -- names -----------------------------------------------------------------------------------------


async def test_two_functions_share_an_operation(coordinator: Coordinator, name: str) -> None:
    one = task_token_guard(name, {"weight": "heavy"})(lambda: 1)
    two = task_token_guard(name, {"weight": "heavy"})(add)
    three = task_token_guard(name)(max)
    assert [await one(), await two(1), await three(3, 2)] == [1, 2, 3]
    assert coordinator.stats().operations[name].completed == 3


async def test_functions_that_share_an_operation_keep_their_tags(
    coordinator: Coordinator, name: str
) -> None:
    one = task_token_guard(name, {"team": "a"})(add)
    two = task_token_guard(name, {"team": "b"})(max)
    first, second = one(1), two(1, 2)
    assert (await first, await second) == (2, 2)
    assert (first.tags, second.tags) == ({"team": "a"}, {"team": "b"})


def other_function() -> None: ...


def test_two_weights_for_one_operation_name_both_functions(name: str) -> None:
    keep = task_token_guard(name, {"weight": "heavy"})(add)
    with pytest.raises(ValueError, match="two weights") as caught:
        task_token_guard(name, {"weight": "light"})(other_function)
    text = str(caught.value)
    for part in (name, f"{__name__}.add", f"{__name__}.other_function", "heavy", "light"):
        assert part in text
    assert keep.operation == name


async def test_after_such_an_error_the_first_works_on(coordinator: Coordinator, name: str) -> None:
    guarded = task_token_guard(name, {"weight": "heavy"})(add)
    with pytest.raises(ValueError, match="two weights"):
        task_token_guard(name, {"weight": "light"})(other_function)
    token = guarded(1)
    assert await token == 2
    assert token.tags == {"weight": "heavy"}
    with pytest.raises(ValueError, match="two weights"):  # still known
        task_token_guard(name, {"weight": "medium"})(other_function)


def test_one_that_says_nothing_about_weight_contradicts_nobody(name: str) -> None:
    first = task_token_guard(name, {"weight": "heavy"})(add)
    second = task_token_guard(name)(other_function)
    with pytest.raises(ValueError, match="two weights") as caught:
        task_token_guard(name, {"weight": "light"})(max)
    assert f"{__name__}.add" in str(caught.value)
    assert first.operation == second.operation


def redefine(weight: str, result: int) -> GuardedFunction[[], int]:
    def again() -> int:
        return result

    return task_token_guard(None, {"weight": weight})(again)


async def test_redefined_the_last_wins(coordinator: Coordinator) -> None:
    # As in a notebook, where a cell is run again.
    first = redefine("light", 1)
    before = first()
    second = redefine("heavy", 2)
    third = redefine("medium", 3)
    assert first.operation == second.operation == third.operation
    after = third()
    assert [await before, await second(), await after] == [1, 2, 3]
    assert before.tags == {"weight": "light"}
    assert after.tags == {"weight": "medium"}
    assert coordinator.stats().operations[third.operation].completed == 3


async def test_the_same_function_guarded_twice_under_two_names(
    coordinator: Coordinator, name: str
) -> None:
    one, two = task_token_guard(name)(add), task_token_guard(f"{name}, too")(add)
    assert await one(1) == await two(1) == 2
    operations = coordinator.stats().operations
    assert operations[name].completed == operations[f"{name}, too"].completed == 1


@pytest.mark.parametrize(
    "odd", [" ", "a\nb", "käse ☃ 🧀", "x" * 10_000, "\ud800", "\x00", "other", "a.b[c]{d}%s"]
)
async def test_any_text_will_do_for_a_name(coordinator: Coordinator, odd: str) -> None:
    guarded = task_token_guard(odd)(add)
    token = guarded(1)
    assert await token == 2
    assert token.operation_type == odd
    assert coordinator.stats().operations[odd].completed == 1
    assert repr(token)
    assert repr(guarded)


async def test_beyond_a_thousand_names_they_share_one(coordinator: Coordinator) -> None:
    for i in range(1100):
        token = coordinator.submit(task_token_guard(f"one of many {i}")(add), i)
        assert await token == i + 1
        assert token.operation_type == f"one of many {i}"
    operations = coordinator.stats().operations
    assert len(operations) == 1001
    assert operations["other"].completed == 100
    assert coordinator.stats().totals.completed == 1100
    late = task_token_guard("one of many 1099")(add)
    assert await late(1) == 2
    await coordinator.drain(late)
