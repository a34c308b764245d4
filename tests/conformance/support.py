"""What the conformance tests share: the running interpreter's own test cases, those left out and why."""

from __future__ import annotations

import importlib
import sys
import unittest
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

VERSION = ".".join(map(str, sys.version_info[:3]))
missing: set[str] = set()  # what `stdlib_tests` did not find
UNTOUCHED = "nothing of ours was in it"


def stdlib_tests(package: str, name: str) -> ModuleType | None:
    """The module of that name from the interpreter's own tests, or None where it has none.

    Many distributions leave the tests away, or part of them; older versions lack the newer ones.
    """
    full = f"{package}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{full}.".startswith(f"{error.name}."):
            raise  # it is there, and what it needs is not
        missing.add(full)
        return None


def definer(case: type, test: str) -> str:
    """ "module.Class.test" of where a test is written down, be it in a base class."""
    for base in case.__mro__:
        if test in vars(base):
            return f"{base.__module__.rpartition('.')[2]}.{base.__name__}.{test}"
    raise AttributeError(f"{case.__name__} has no test {test!r}")


def tests_of(case: type[unittest.TestCase]) -> Iterator[str]:
    """Names of its tests, inherited ones too."""
    return iter(unittest.defaultTestLoader.getTestCaseNames(case))


def leave_out(case: type[unittest.TestCase], reasons: Mapping[str, str]) -> set[str]:
    """Replace the tests that `reasons` names by skips that tell why. Gives the names it met."""
    met = set()

    def skip(reason: str) -> Any:
        def test(self: unittest.TestCase) -> None:
            self.skipTest(f"left out: {reason}")

        return test

    for test in tests_of(case):
        name = definer(case, test)
        if name in reasons:
            setattr(case, test, skip(reasons[name]))
            met.add(name)
    return met
