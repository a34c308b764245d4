"""Guarded methods: bound like functions, in both decorator orders, on instances and on classes."""

from __future__ import annotations

import abc
import asyncio
import functools
import gc
import inspect
import sys
import weakref
from typing import Any

import pytest

from tokengate import Coordinator, GuardedFunction, task_token_guard


class Service:
    name = "the class"

    def __init__(self, name: str) -> None:
        self.name = name

    @task_token_guard
    def bare(self, x: int = 0) -> tuple[str, int]:
        """Bare."""
        return self.name, x

    @task_token_guard("a method", {"weight": "light"})
    def named(self, x: int = 0) -> tuple[str, int]:
        return self.name, x

    @task_token_guard
    @classmethod
    def class_outside(cls, x: int = 0) -> tuple[str, int]:
        return cls.name, x

    @classmethod
    @task_token_guard
    def class_inside(cls, x: int = 0) -> tuple[str, int]:
        return cls.name, x

    @task_token_guard
    @staticmethod
    def static_outside(x: int = 0) -> tuple[str, int]:
        return "static", x

    @staticmethod
    @task_token_guard
    def static_inside(x: int = 0) -> tuple[str, int]:
        return "static", x


class Derived(Service):
    name = "the derived class"

    @task_token_guard
    def bare(self, x: int = 0) -> tuple[str, int]:
        return super().bare.__wrapped__(x + 1)


CASES = [
    ("bare", "mine"),
    ("named", "mine"),
    ("class_outside", "the class"),
    ("class_inside", "the class"),
    ("static_outside", "static"),
    ("static_inside", "static"),
]
NAMES = [name for name, _ in CASES]
# Since Python 3.13 a classmethod around a guard gives a plain bound method: it can be called, but
# its attributes are those of the unbound guard. Outside, the guard binds by itself.
BINDS = [case for case in CASES if case[0] != "class_inside" or sys.version_info < (3, 13)]


@pytest.mark.parametrize(("name", "expected"), CASES)
async def test_called_on_an_instance(coordinator: Coordinator, name: str, expected: str) -> None:
    method = getattr(Service("mine"), name)
    assert await method(3) == (expected, 3)
    assert await method(x=4) == (expected, 4)
    assert await method() == (expected, 0)


@pytest.mark.parametrize(("name", "expected"), CASES)
async def test_called_on_the_class(coordinator: Coordinator, name: str, expected: str) -> None:
    function = getattr(Service, name)
    self = (Service("mine"),) if expected == "mine" else ()
    assert await function(*self, 3) == (expected, 3)


async def test_called_on_a_derived_class(coordinator: Coordinator) -> None:
    assert await Derived.class_outside(1) == ("the derived class", 1)
    assert await Derived.class_inside(1) == ("the derived class", 1)
    assert await Derived("mine").class_outside(1) == ("the derived class", 1)
    assert await Derived("mine").bare(1) == ("mine", 2)
    assert await Derived("mine").named(1) == ("mine", 1)


@pytest.mark.parametrize(("name", "expected"), BINDS)
async def test_mapped_on_an_instance(coordinator: Coordinator, name: str, expected: str) -> None:
    method = getattr(Service("mine"), name)
    assert await method.map([1, 2]) == [(expected, 1), (expected, 2)]
    assert await method.starmap([(1,), ()]) == [(expected, 1), (expected, 0)]
    assert [value async for value in method.map([1, 2])] == [(expected, 1), (expected, 2)]


@pytest.mark.parametrize(("name", "expected"), BINDS)
async def test_mapped_on_the_class(coordinator: Coordinator, name: str, expected: str) -> None:
    if expected == "mine":
        services = [Service("mine"), Service("mine")]
        assert await getattr(Service, name).map(services, x=3) == [("mine", 3)] * 2
    else:
        assert await getattr(Service, name).map([1, 2]) == [(expected, 1), (expected, 2)]


@pytest.mark.parametrize(("name", "expected"), BINDS)
async def test_options_on_an_instance(coordinator: Coordinator, name: str, expected: str) -> None:
    view = getattr(Service("mine"), name).options(tags={"weight": "light"})
    assert await view(3) == (expected, 3)
    assert await view.map([3]) == [(expected, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_of_a_bound_method_has_no_self(name: str) -> None:
    signature = inspect.signature(getattr(Service("mine"), name))
    assert str(signature) == "(x: 'int' = 0) -> 'tuple[str, int]'"
    if name not in ("bare", "named"):
        assert list(inspect.signature(getattr(Service, name)).parameters) == ["x"]
    else:
        assert list(inspect.signature(getattr(Service, name)).parameters) == ["self", "x"]


@pytest.mark.parametrize("name", NAMES)
def test_bound_and_unbound_count_as_coroutine_functions(name: str) -> None:
    for owner in (Service, Service("mine")):
        method = getattr(owner, name)
        assert inspect.iscoroutinefunction(method)
        if isinstance(method, GuardedFunction):
            assert inspect.iscoroutinefunction(method.__call__)


def test_a_bound_method_tells_about_itself() -> None:
    service = Service("mine")
    assert service.bare.__doc__ == "Bare."
    assert service.bare.__name__ == "bare"
    assert service.bare.__qualname__ == "Service.bare"
    assert service.bare.operation == f"{__name__}.Service.bare"
    assert service.named.operation == "a method"
    assert "bare" in repr(service.bare)
    assert service.bare.__wrapped__(3) == ("mine", 3)
    assert isinstance(service.bare, GuardedFunction)


@pytest.mark.parametrize("name", NAMES)
def test_bound_methods_are_equal_as_pythons_own_are(name: str) -> None:
    # Frameworks find dependencies, overrides and listeners by it.
    one, other = Service("mine"), Service("mine")
    first, again = getattr(one, name), getattr(one, name)
    assert first == again
    assert hash(first) == hash(again)
    assert {first: 1}[again] == 1
    if name in ("bare", "named"):
        assert first != getattr(other, name)
        assert Service.bare != one.bare
    assert one.bare != one.named


def test_methods_of_instances_without_equality_or_hash() -> None:
    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        @task_token_guard
        def method(self) -> None: ...

    odd = Odd()
    assert odd.method == odd.method
    assert hash(odd.method) == hash(odd.method)
    assert odd.method != Odd().method


async def test_binding_keeps_the_instance_alive_and_no_longer(coordinator: Coordinator) -> None:
    service = Service("mine")
    ref = weakref.ref(service)
    method = service.bare
    del service
    assert await method(1) == ("mine", 1)
    del method
    await coordinator.aclose()
    gc.collect()
    assert ref() is None


async def test_the_receiver_is_not_looked_at(coordinator: Coordinator) -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

        def __len__(self) -> int:
            raise AssertionError("asked for its length")

        @task_token_guard
        def method(self) -> int:
            return 5

    assert await Proxy().method() == 5


async def test_abstract_methods_in_both_orders(coordinator: Coordinator) -> None:
    class Base(abc.ABC):
        @task_token_guard
        @abc.abstractmethod
        def outside(self) -> int: ...

        @abc.abstractmethod
        @task_token_guard
        def inside(self) -> int: ...

    class Half(Base):
        @task_token_guard
        def outside(self) -> int:
            return 1

    class Whole(Half):
        @task_token_guard
        def inside(self) -> int:
            return 2

    incomplete: list[Any] = [Base, Half]
    for missing in incomplete:
        with pytest.raises(TypeError, match="abstract"):
            missing()
    whole = Whole()
    assert await whole.outside() + await whole.inside() == 3


async def test_a_class_with_slots(coordinator: Coordinator) -> None:
    class Slotted:
        __slots__ = ("x",)

        def __init__(self, x: int) -> None:
            self.x = x

        @task_token_guard
        def method(self, y: int) -> int:
            return self.x + y

    assert await Slotted(1).method(2) == 3


async def test_a_falsy_instance(coordinator: Coordinator) -> None:
    class Empty(list[int]):
        @task_token_guard
        def method(self) -> int:
            return len(self)

    assert await Empty().method() == 0


async def test_of_none_as_instance(coordinator: Coordinator) -> None:
    guarded: Any = task_token_guard("described")(lambda self: self)
    bound = guarded.__get__(None, type(None))
    assert bound is guarded  # as a function's __get__ would fail, ours gives the unbound one


async def test_a_guarded_function_put_on_a_class_later(coordinator: Coordinator) -> None:
    class Plain:
        pass

    def method(self: Any, x: int) -> tuple[Any, int]:
        return self, x

    Plain.method = task_token_guard(method)  # type: ignore[attr-defined]
    plain = Plain()
    assert await plain.method(1) == (plain, 1)  # type: ignore[attr-defined]
    plain.own = task_token_guard("own")(lambda x: x)  # type: ignore[attr-defined]
    assert await plain.own(2) == 2  # type: ignore[attr-defined]


async def test_a_property_and_a_cached_property_over_a_guard(coordinator: Coordinator) -> None:
    class Lazy:
        calls = 0

        @task_token_guard
        def load(self) -> int:
            self.calls += 1
            return self.calls

        @property
        def value(self) -> Any:
            return self.load()

        @functools.cached_property
        def cached(self) -> Any:
            return self.load()

    lazy = Lazy()
    assert [await lazy.value, await lazy.value] == [1, 2]
    assert [await lazy.cached, await lazy.cached] == [3, 3]


async def test_partialmethod(coordinator: Coordinator) -> None:
    class Part:
        @task_token_guard
        def both(self, x: int, y: int) -> tuple[int, int]:
            return x, y

        half = functools.partialmethod(both, 1)

    assert await Part().half(2) == (1, 2)


async def test_methods_of_many_instances_at_once(coordinator: Coordinator) -> None:
    services = [Service(str(i)) for i in range(200)]
    results = await asyncio.gather(*[service.bare(i) for i, service in enumerate(services)])
    assert results == [(str(i), i) for i in range(200)]
    assert coordinator.stats().operations[f"{__name__}.Service.bare"].completed == 200
