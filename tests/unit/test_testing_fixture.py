"""`tokengate.testing.fresh_coordinator` in test suites of others: what passes, what fails, and how."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

import tokengate.testing
from tests.conftest import RunPython

pytest_plugins = ["pytester"]

IMPORTED = "from tokengate.testing import fresh_coordinator"
WITHOUT_ASYNCIO = ("-p", "no:asyncio")
AS_PLUGIN = 'pytest_plugins = ["tokengate.testing"]'

HEAD = """
import asyncio
import threading

import pytest

from tokengate import (Coordinator, TokenState, current_token, get_coordinator, task_token_guard,
                       use)
from tokengate.testing import inline

stuck = threading.Event()

@task_token_guard("fetch")
def fetch(value=None):
    return value

@task_token_guard("hold")
def hold(until):
    until.wait(60)
"""


@pytest.fixture(autouse=True)
def not_on_a_build_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """There pytest repeats whole errors in its summary, which it cuts short elsewhere."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)


@pytest.fixture(params=[IMPORTED, AS_PLUGIN], ids=["imported", "as plugin"])
def suite(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(request.param)
    return pytester


@pytest.fixture
def one_suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(IMPORTED)
    return pytester


def run(suite: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    suite.makepyfile(HEAD + tests)
    # in a process of its own: what it leaves stuck is none of this one's business
    return suite.runpytest_subprocess("-W", "error", *(options or WITHOUT_ASYNCIO), timeout=100)


def test_calls_run_on_it(suite: pytest.Pytester) -> None:
    result = run(
        suite,
        """
def test_sync(fresh_coordinator):
    assert isinstance(fresh_coordinator, Coordinator)
    assert get_coordinator() is fresh_coordinator
    assert fetch(1).result(20) == 1
    assert fresh_coordinator.stats().totals.completed == 1

def test_another_has_another(fresh_coordinator):
    assert fresh_coordinator.stats().totals.submitted == 0

def test_inline_goes_with_it(fresh_coordinator):
    with inline():
        assert fetch(1).done()
    assert fresh_coordinator.stats().totals.completed == 1

def test_the_default_is_back():
    assert get_coordinator() is not None
    assert get_coordinator().name == "tokengate"

@pytest.mark.parametrize("fresh_coordinator", [{"thread_workers": 3}], indirect=True)
def test_settings(fresh_coordinator):
    assert fresh_coordinator.stats().lanes["thread"].max_workers == 3

def test_one_that_stops_it(fresh_coordinator):
    with fresh_coordinator:
        fetch(1).result(20)
""",
    )
    result.assert_outcomes(passed=6)


ASYNC_TESTS = """
{mark}
async def test_async(fresh_coordinator):
    assert get_coordinator() is fresh_coordinator
    assert await asyncio.gather(*[fetch(n) for n in range(10)]) == list(range(10))
    assert await fetch.map(range(10)) == list(range(10))
    async def task():
        return await fetch(1)
    assert await asyncio.create_task(task()) == 1
    assert fresh_coordinator.stats().totals.completed == 21

class TestMethods:
    {mark}
    async def test_method(self, older, fresh_coordinator, younger):
        assert get_coordinator() is fresh_coordinator
        assert (older, younger) == ("older", "younger")
        assert await fetch(1) == 1
        assert fresh_coordinator.stats().totals.completed == 1 + STARTED_BY_YOUNGER

{mark}
async def test_it_fails_here_too(fresh_coordinator):
    fresh_coordinator.pause()
    async def forget():
        fetch(1)
    await asyncio.create_task(forget(), name="forgetful")

{mark}
async def test_without_it():
    assert get_coordinator().name == "tokengate"
"""

FIXTURES = """
@{fixture}
async def older():
    return "older"

@{fixture}
async def younger(fresh_coordinator):
    if STARTED_BY_YOUNGER:
        await fetch(1)
    return "younger"

"""


@pytest.mark.same_everywhere
@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_under_pytest_asyncio(one_suite: pytest.Pytester, mode: str) -> None:
    pytest.importorskip("pytest_asyncio")
    fixtures = FIXTURES.format(fixture="pytest_asyncio.fixture")
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    result = run(
        one_suite,
        f"import pytest_asyncio\nSTARTED_BY_YOUNGER = 1\n{fixtures}{ASYNC_TESTS.format(mark=mark)}",
        f"--asyncio-mode={mode}",
        *("-o", "asyncio_default_fixture_loop_scope=function"),
    )
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*token 1 of 'fetch', WAITING, called by task 'forgetful'"])


@pytest.mark.same_everywhere
def test_under_anyio(one_suite: pytest.Pytester) -> None:
    pytest.importorskip("anyio")
    fixtures = FIXTURES.format(fixture="pytest.fixture")
    # a fixture of the module keeps one runner, and so one context, through all tests
    backend = """
@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="module", autouse=True)
async def first(anyio_backend):
    return await asyncio.sleep(0)
"""
    result = run(
        one_suite,
        f"STARTED_BY_YOUNGER = 0\n{backend}{fixtures}"
        + ASYNC_TESTS.format(mark="@pytest.mark.anyio"),
        *WITHOUT_ASYNCIO,
    )
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*token 1 of 'fetch', WAITING, called by task 'forgetful'"])


@pytest.mark.same_everywhere
def test_tokens_left_behind_are_named(one_suite: pytest.Pytester) -> None:
    result = run(
        one_suite,
        """
def test_leaves(fresh_coordinator):
    fetch(1).result(20)
    release = threading.Event()
    token = hold(release)
    while token.state is not TokenState.EXECUTING:
        pass
    fresh_coordinator.pause("fetch")
    left.extend([token, fetch(1), fetch(2)])
    timer = threading.Timer(0.2, release.set)
    timer.start()

left = []

def test_is_not_harmed(fresh_coordinator):
    assert fetch(1).result(20) == 1
    assert {token.state for token in left} == {TokenState.KILLED}
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaves*",
            "3 tokens had not ended when the test was over*",
            "  token 2 of 'hold', EXECUTING, called outside any task",
            "  token 3 of 'fetch', WAITING, called outside any task",
            "  token 4 of 'fetch', WAITING, called outside any task",
        ]
    )
    assert "had not returned" not in result.stdout.str()


@pytest.mark.same_everywhere
def test_calls_of_an_executor_left_behind_are_named(one_suite: pytest.Pytester) -> None:
    result = run(
        one_suite,
        """
from tokengate import Executor

def test_leaves(fresh_coordinator):
    fresh_coordinator.pause()
    Executor().submit(len, "abc")

async def leave():
    Executor().submit(len, "abc")

def test_leaves_a_loops(fresh_coordinator):
    fresh_coordinator.pause()
    asyncio.run(leave())
""",
    )
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaves*",
            "  token 1 of 'builtins.len', WAITING, called outside any task",
            "*ERROR at teardown of test_leaves_a_loops*",
            "  token 1 of 'builtins.len', WAITING, called by task *",
        ]
    )


@pytest.mark.same_everywhere
def test_thousands_left_behind_are_not_all_named(one_suite: pytest.Pytester) -> None:
    result = run(
        one_suite,
        """
def test_leaves(fresh_coordinator):
    fresh_coordinator.pause()
    for _ in range(5000):
        fetch(1)
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["5000 tokens had not ended*", "  and 4980 more"])
    assert len(re.findall("token [0-9]+ of 'fetch', WAITING", result.stdout.str())) == 20


def test_a_stuck_function_hangs_nothing(one_suite: pytest.Pytester) -> None:
    result = run(
        one_suite,
        """
@task_token_guard("stuck")
def stuck_here():
    stuck.wait()

def test_abandons(fresh_coordinator):
    token = stuck_here()
    while token.state is not TokenState.EXECUTING:
        pass
    token.cancel()
    assert token.abandoned

def test_is_not_harmed(fresh_coordinator):
    assert fetch(1).result(20) == 1
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_abandons*",
            "1 function had not returned 5 s after the test was over*",
            "*Token 1 stuck CANCELLED abandoned*",
            "*in stuck_here*",
        ]
    )
    assert "had not ended" not in result.stdout.str()


def test_an_abandoned_run_that_returns_is_no_error(one_suite: pytest.Pytester) -> None:
    result = run(
        one_suite,
        """
async def main():
    release = threading.Event()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hold(release), 0.05)
    return release

def test_lets_it_go(fresh_coordinator):
    asyncio.run(main()).set()
""",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.same_everywhere
def test_no_pytest_is_needed_but_for_the_fixture(run_python: RunPython) -> None:
    said = run_python(
        """
import sys
sys.modules["pytest"] = None
sys.modules["_pytest"] = None
from tokengate.testing import inline
import tokengate, tokengate.testing
with inline():
    print(tokengate.get_coordinator().submit(len, "abc").result())
assert "fresh_coordinator" in dir(tokengate.testing)
try:
    from tokengate.testing import fresh_coordinator
except ImportError as error:
    print(error)
"""
    )
    assert said.splitlines()[0] == "3"
    assert "pip install pytest" in said


def test_the_package_does_not_import_it(run_python: RunPython) -> None:
    said = run_python(
        "import sys, tokengate; print([n for n in sys.modules if 'pytest' in n or '.testing' in n])"
    )
    assert said.strip() == "[]"


def test_unknown_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'stale_coordinator'"):
        _ = tokengate.testing.stale_coordinator  # type: ignore[attr-defined]
    assert importlib.util.find_spec("tokengate.testing") is not None
    assert "tokengate.testing" in sys.modules
