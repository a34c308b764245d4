"""Which coordinator runs a call: the default one, the one in use, the one of the options."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, get_coordinator, task_token_guard, use

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator

TIMEOUT = 20.0


@task_token_guard
def where() -> str:
    """The name of the coordinator that runs this call."""
    return threading.current_thread().name.rpartition("-")[0]


@task_token_guard
def where_nested() -> str:
    return where().result(TIMEOUT)


@pytest.fixture
def first(new_coordinator: NewCoordinator) -> Coordinator:
    return new_coordinator(name="first", thread_workers=2)


@pytest.fixture
def second(new_coordinator: NewCoordinator) -> Coordinator:
    return new_coordinator(name="second", thread_workers=2)


def test_the_default_one_is_always_the_same() -> None:
    default = get_coordinator()
    assert isinstance(default, Coordinator)
    assert get_coordinator() is default
    assert default.name == "tokengate"
    assert where().result(TIMEOUT) == "tokengate"


def test_use_chooses_for_the_calls_inside(first: Coordinator, second: Coordinator) -> None:
    default = get_coordinator()
    with use(first) as chosen:
        assert chosen is first
        assert get_coordinator() is first
        assert where().result(TIMEOUT) == "first"
        with use(second):
            assert get_coordinator() is second
            assert where().result(TIMEOUT) == "second"
        assert get_coordinator() is first
        assert list(where_of_items.map(range(3))) == ["first"] * 3
    assert get_coordinator() is default
    assert where().result(TIMEOUT) == "tokengate"


@task_token_guard
def where_of_items(_: int) -> str:
    return threading.current_thread().name.rpartition("-")[0]


def test_use_ends_with_an_exception(first: Coordinator) -> None:
    with pytest.raises(LookupError), use(first):
        raise LookupError
    assert get_coordinator().name == "tokengate"


def test_use_may_be_entered_again_and_inside_itself(first: Coordinator) -> None:
    chosen = use(first)
    for _ in range(2):
        with chosen:
            with chosen:
                assert get_coordinator() is first
            assert get_coordinator() is first
        assert get_coordinator() is not first


@pytest.mark.parametrize("wrong", [None, "default", Coordinator])
def test_use_takes_a_coordinator(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Coordinator") as caught:
        use(wrong)
    assert repr(wrong) in str(caught.value)


def test_use_does_not_reach_into_other_threads(first: Coordinator) -> None:
    names: list[str] = []
    with use(first):
        thread = threading.Thread(target=lambda: names.append(get_coordinator().name))
        thread.start()
        thread.join()
    if getattr(sys.flags, "thread_inherit_context", False):
        assert names == ["first"]  # Python's own setting, on by default where there is no GIL
    else:
        assert names == ["tokengate"]


def test_functions_inherit_the_choice_of_their_caller(
    first: Coordinator, second: Coordinator
) -> None:
    with use(first):
        assert where_nested().result(TIMEOUT) == "first"
        token = where_nested.options(coordinator=second)()
    assert token.result(TIMEOUT) == "first"  # the call was moved, not the calls it makes


def test_options_choose_for_one_view(first: Coordinator, second: Coordinator) -> None:
    moved = where.options(coordinator=first)
    assert moved().result(TIMEOUT) == "first"
    assert where().result(TIMEOUT) == "tokengate"
    with use(second):
        assert moved().result(TIMEOUT) == "first"  # closer to the call than use()
        assert moved.options(coordinator=second)().result(TIMEOUT) == "second"
        assert where().result(TIMEOUT) == "second"
    assert list(where_of_items.options(coordinator=first).map(range(3))) == ["first"] * 3


@pytest.mark.parametrize("wrong", ["first", 5, Coordinator])
def test_options_name_a_wrong_coordinator(wrong: Any) -> None:
    with pytest.raises(TypeError, match="coordinator=") as caught:
        where.options(coordinator=wrong)
    assert repr(wrong) in str(caught.value)


def test_submit_runs_on_the_one_it_is_called_on(first: Coordinator, second: Coordinator) -> None:
    with use(second):
        assert first.submit(where).result(TIMEOUT) == "first"
        assert first.submit(where.options(coordinator=second)).result(TIMEOUT) == "first"


async def test_tasks_choose_for_themselves(first: Coordinator, second: Coordinator) -> None:
    entered = asyncio.Barrier(2)

    async def chooses(coordinator: Coordinator) -> list[str]:
        with use(coordinator):
            await entered.wait()  # both are inside now
            child = asyncio.ensure_future(awaits())
            return [await where(), await child, get_coordinator().name]

    async def awaits() -> str:
        return await where()

    results = await asyncio.gather(chooses(first), chooses(second))
    assert list(results) == [["first"] * 3, ["second"] * 3]
    assert await where() == "tokengate"


async def test_await_inside_and_outside(first: Coordinator) -> None:
    with use(first):
        token = where()
    assert await token == "first"
    with use(first):
        assert list(await tokengate.gather(where(), where())) == ["first", "first"]
        assert await where_of_items.map(range(3)) == ["first"] * 3
