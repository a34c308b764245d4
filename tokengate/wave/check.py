"""Is every result right? Compares it with what the plain function returns for the same call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .mix import Arguments, TaskMix

CHECK_SLICE = 256
"""Results checked between two looks at the event loop, which must hear Ctrl-C."""

WRONG_RESULT = "wrong result"
OTHER_FAILURES = "other failures"
MOST_KINDS = 20
"""Kinds of failure told apart: each of a million tokens may fail with a message of its own."""


@dataclass(slots=True)
class Verdict:
    """How many results of a wave were right, and what went wrong with the others."""

    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Task and kind of failure -> how many tokens."""

    @property
    def failed(self) -> int:
        """Tokens that raised or returned something wrong."""
        return self.failures.total()

    def add_failure(self, kind: str) -> None:
        """Count one token that failed in this way."""
        if kind not in self.failures and len(self.failures) >= MOST_KINDS:
            kind = OTHER_FAILURES
        self.failures[kind] += 1


class ResultChecker:
    """Knows the right result of every call of a mix; computes each one once, when first asked."""

    def __init__(self, mix: TaskMix[Any]) -> None:
        """Make one for the calls of `mix`."""
        self._mix = mix
        self._expected: dict[tuple[str, Arguments], object] = {}

    async def check(self, results: Sequence[object]) -> Verdict:
        """Judge `results`, that of token i at place i: an exception or a wrong value is a failure.

        Yields to the loop now and then; computing what was never computed before takes as long
        as the plain calls.
        """
        verdict = Verdict()
        for index, result in enumerate(results):
            if index % CHECK_SLICE == 0:
                await asyncio.sleep(0)
            problem = self.problem(index, result)
            if problem is None:
                verdict.ok += 1
            else:
                verdict.add_failure(problem)
        return verdict

    def learn(self, results: Sequence[object]) -> None:
        """Take over `results` of plain calls, that of call i at place i, as the right ones."""
        for index, result in enumerate(results):
            task, arguments = self._mix.call(index)
            self._expected.setdefault((task.name, arguments), result)

    def problem(self, index: int, result: object) -> str | None:
        """What is wrong with the result of call `index`, in words; None: nothing."""
        task, arguments = self._mix.call(index)
        if isinstance(result, BaseException):
            said = f": {text}" if (text := str(result)) else ""
            return f"{task.name}: {type(result).__name__}{said}"
        key = (task.name, arguments)
        if key not in self._expected:
            self._expected[key] = task.plain(*arguments)
        return None if result == self._expected[key] else f"{task.name}: {WRONG_RESULT}"
