"""What a policy cannot be is said at once, with the value and with what was expected."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from tokengate import Coordinator, deadline, task_token_guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Same

NAN = float("nan")

COUNTS = ("limit", "max_waiting", "key_limit")
TIMES = ("timeout", "run_timeout")

# which arguments, which values they cannot have, and what is raised
WRONG: list[tuple[tuple[str, ...], list[Any], type[Exception], str]] = [
    (COUNTS, [0, -1, 2**31], ValueError, "expected 1 to"),
    (
        COUNTS,
        [1.0, 1.5, NAN, math.inf, "1", True, [1], Fraction(1), object],
        TypeError,
        "expected a whole number",
    ),
    (("key_limit",), [None], TypeError, "expected a whole number"),
    (
        ("overflow",),
        ["", "drop", "REJECT", None, 0, True, [], b"reject"],
        ValueError,
        "expected 'reject', 'shed_oldest' or 'block'",
    ),
    (("priority",), [2**31, -(2**31), 10**30], ValueError, "expected -"),
    (
        ("priority",),
        [1.0, NAN, math.inf, "high", True, []],
        TypeError,
        "expected a whole number",
    ),
    (
        TIMES,
        [0, 0.0, -0.0, -1, -0.5, NAN, -math.inf, -(10**400)],
        ValueError,
        "expected more than 0 seconds",
    ),
    (
        TIMES,
        ["1", "", True, False, [1], Decimal(1), Fraction(1), object()],
        TypeError,
        "expected seconds as a number",
    ),
    (("key",), [0, 1, "id", [], ("a",)], TypeError, "expected a callable"),
]
IMPOSSIBLE = [
    (argument, value, error, expectation)
    for arguments, values, error, expectation in WRONG
    for argument in arguments
    for value in values
]
WRONG_DEADLINES: list[tuple[list[Any], type[Exception]]] = [
    ([-1, -0.001, NAN, -math.inf], ValueError),
    (["1", None, True, [], Decimal(1)], TypeError),
]
EACH = pytest.mark.parametrize(
    ("argument", "value", "error", "expectation"),
    IMPOSSIBLE,
    ids=[f"{argument}={str(value)[:12]}" for argument, value, *_ in IMPOSSIBLE],
)


def refused(
    argument: str, value: Any, error: type[Exception], expectation: str, call: Callable[..., Any]
) -> None:
    with pytest.raises(error) as told:
        call(**{argument: value})
    assert type(told.value) is error
    assert f"{argument}={value!r}"[:40] in str(told.value), "it names the argument and the value"
    assert expectation in str(told.value)
    if argument == "key_limit":
        assert "None" not in str(told.value).replace(repr(value), ""), "None is no key_limit"


@EACH
def test_at_decoration(
    name: str, argument: str, value: Any, error: type[Exception], expectation: str
) -> None:
    def decorate(**policy: Any) -> None:
        task_token_guard(name, **policy)

    refused(argument, value, error, expectation, decorate)


@EACH
def test_in_options(
    name: str, argument: str, value: Any, error: type[Exception], expectation: str, same: Same
) -> None:
    if argument in ("priority", "timeout", "run_timeout", "key"):
        refused(argument, value, error, expectation, task_token_guard(name)(same).options)
    else:
        with pytest.raises(TypeError, match=argument):  # of the operation, not of a call
            task_token_guard(name)(same).options(**{argument: value})


@EACH
def test_in_configure(
    coordinator: Coordinator,
    name: str,
    argument: str,
    value: Any,
    error: type[Exception],
    expectation: str,
    same: Same,
) -> None:
    guarded = task_token_guard(name, limit=3, key_limit=2, timeout=60)(same)
    assert guarded(1).result(20) == 1

    def configure(**policy: Any) -> None:
        # what is fine does not hold either where another value is not
        coordinator.configure(guarded, **{"max_waiting": 1, **policy})

    refused(argument, value, error, expectation, configure)
    coordinator.pause(guarded)
    tokens = [guarded(i) for i in range(5)]
    coordinator.resume(guarded)
    assert [token.result(20) for token in tokens] == list(range(5))


@pytest.mark.parametrize(
    ("value", "error"),
    [(value, error) for values, error in WRONG_DEADLINES for value in values],
    ids=str,
)
def test_of_a_deadline(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="expected") as told:
        deadline(value)
    assert repr(value) in str(told.value)


@pytest.mark.parametrize("seconds", [math.inf, 1e308, 10**400, 10**18, 3.2e9])
async def test_too_long_is_as_good_as_none(
    coordinator: Coordinator, name: str, seconds: float, same: Same
) -> None:
    guarded = task_token_guard(name, timeout=seconds, run_timeout=seconds)(same)
    with deadline(seconds):
        assert await guarded.options(timeout=seconds)(1) == 1
    coordinator.configure(guarded, timeout=seconds, run_timeout=seconds)
    assert await guarded(2) == 2


@pytest.mark.parametrize("seconds", [1e-9, 1e-300, 5e-324])
async def test_too_short_expires(
    coordinator: Coordinator, name: str, seconds: float, same: Same
) -> None:
    guarded = task_token_guard(name, timeout=seconds)(same)
    coordinator.pause(guarded)
    assert (await guarded.map([1], tokens=True, return_exceptions=True))[0].state.name == "EXPIRED"
    coordinator.resume(guarded)


def test_the_greatest_values_work(coordinator: Coordinator, name: str, same: Same) -> None:
    most = 2**31 - 1
    guarded = task_token_guard(
        name, limit=most, max_waiting=most, priority=most, key=same, key_limit=most
    )(same)
    tokens = [guarded(i % 3) for i in range(50)]
    assert [token.result(20) for token in tokens] == [i % 3 for i in range(50)]
    assert guarded.options(priority=-most)(1).result(20) == 1


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pause", "resume", "discard", "configure", "kill_operation"])
def test_an_unknown_operation(coordinator: Coordinator, name: str, method: str, same: Same) -> None:
    ran = task_token_guard(f"{name} hash_compute")(same)
    assert ran().result(20) is None
    with pytest.raises(ValueError, match="did you mean") as told:
        getattr(coordinator, method)(f"{name} hash_compte")
    assert repr(f"{name} hash_compte") in str(told.value)
    assert repr(f"{name} hash_compute") in str(told.value)


@pytest.mark.parametrize("method", ["pause", "resume", "discard", "configure", "kill_operation"])
def test_names_that_have_not_run_are_near_as_well(
    coordinator: Coordinator, name: str, method: str, same: Same
) -> None:
    """At start-up, where policies are configured, nothing has run yet."""
    guarded = task_token_guard(f"{name} image_resize")(same)
    with pytest.raises(ValueError, match="did you mean") as told:
        getattr(coordinator, method)(f"{name} image_resise")
    assert repr(guarded.operation) in str(told.value)


async def test_an_unknown_operation_to_drain(coordinator: Coordinator, same: Same) -> None:
    assert await coordinator.submit(same, 1) == 1
    with pytest.raises(ValueError, match=r"same"):
        await coordinator.drain(f"{same.__module__}.some")


@pytest.mark.parametrize("method", ["pause", "resume", "discard", "configure", "kill_operation"])
@pytest.mark.parametrize("wrong", [3, b"name", ["name"], refused, 1.5], ids=str)
def test_what_cannot_name_an_operation(coordinator: Coordinator, method: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected the name of an operation, or a guarded function"):
        getattr(coordinator, method)(wrong)


def test_an_unknown_policy(coordinator: Coordinator, name: str, same: Same) -> None:
    guarded = task_token_guard(name)(same)
    with pytest.raises(TypeError, match=r"'limits' is not part of a policy.*limit") as told:
        coordinator.configure(guarded, limits=3)  # type: ignore[call-arg]
    assert "max_waiting" in str(told.value)
    with pytest.raises(TypeError, match="limits"):
        task_token_guard(name, limits=3)  # type: ignore[call-overload]


def test_two_functions_that_contradict_each_other(name: str, same: Same) -> None:
    def another() -> None:
        pass

    first = task_token_guard(name, limit=2)(same)
    with pytest.raises(ValueError, match="two policies") as told:
        task_token_guard(name, limit=3)(another)
    for named in (name, "limit=2", "limit=3", "same", "another"):
        assert named in str(told.value)
    assert task_token_guard(name)(another).operation == first.operation
    assert task_token_guard(name, limit=2)(another).operation == first.operation
