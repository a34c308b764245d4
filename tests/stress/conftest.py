"""Fixtures for stress tests: threads that change at every bytecode, and books on every token."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from tests.conftest import NewCoordinator
    from tests.stress import books as ledger
    from tests.stress.books import Books
else:
    # Test folders are no packages, and soak.py, a script, imports its sibling as a script does.
    _spec = importlib.util.spec_from_file_location("books", Path(__file__).with_name("books.py"))
    ledger = sys.modules["books"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(ledger)


class NewBooks(Protocol):
    def __call__(self, **settings: Any) -> Books: ...


class Crowd(Protocol):
    def __call__(self, count: int, work: Callable[[int], Any]) -> None: ...


class WaitUntil(Protocol):
    def __call__(self, condition: Callable[[], object], what: str | Callable[[], str]) -> None: ...


@pytest.fixture(autouse=True)
def nervous() -> Iterator[None]:
    """Threads take turns as often as the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def new_books(new_coordinator: NewCoordinator) -> Iterator[NewBooks]:
    """Makes coordinators with books on them, which are checked after the test."""
    made: list[Books] = []

    def make(**settings: Any) -> Books:
        made.append(ledger.Books(new_coordinator(**settings)))
        return made[-1]

    yield make
    for each in made:
        each.check()


@pytest.fixture
def books(new_books: NewBooks) -> Books:
    """Books on a fresh coordinator of four workers."""
    return new_books(thread_workers=4)


@pytest.fixture
def crowd() -> Crowd:
    """`crowd(n, work)`: run work(0) ... work(n - 1), each in a thread of its own, all at once."""
    return ledger.crowd


@pytest.fixture
def wait_until() -> WaitUntil:
    """`wait_until(condition, what)`: poll, off any loop, for what has no event of its own."""
    return ledger.wait_until


@pytest.fixture
def dice() -> random.Random:
    """A source of chance; a failing test prints its seed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed: {seed}")
    return random.Random(seed)
