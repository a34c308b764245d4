"""The pytest fixture; imports pytest, so nothing else of the package imports this."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tokengate.coordinator import Coordinator
from tokengate.current import use
from tokengate.testing.leftovers import settle

__all__ = ["fresh_coordinator"]

_serial = itertools.count(1)


@pytest.fixture
def fresh_coordinator(request: pytest.FixtureRequest) -> Iterator[Coordinator]:
    """A started coordinator of the test's own, which its guarded calls run on.

    An error at teardown names the tokens that have not ended when the test is over, and the
    functions that have not returned a few seconds later; both are ended or left to their daemon
    threads, so that nothing hangs and the next test starts afresh. Parametrized indirectly it takes
    `Coordinator`'s arguments as a dictionary.
    """
    settings: dict[str, Any] = {"name": f"fresh{next(_serial)}", **getattr(request, "param", {})}
    coordinator = Coordinator(**settings).start()
    with use(coordinator), _in_coroutines(request.node, coordinator):
        yield coordinator
    left = settle(coordinator)
    if left:
        pytest.fail(left, pytrace=False)


@contextmanager
def _in_coroutines(item: Any, coordinator: Coordinator) -> Generator[None, None, None]:
    # anyio's plugin runs a coroutine in the context of a task that may be older than this test, as
    # did early releases of pytest-asyncio; what is set here would not be seen there.
    test = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(test):
        yield
        return

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> Any:
        with use(coordinator):
            return await test(*args, **kwargs)

    item.obj = run
    try:
        yield
    finally:
        item.obj = test
