"""Where gevent has put greenlets in the place of threads calls end saying so; nothing hangs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from tokengate import Coordinator, TokenKilled


def patched(monkeypatch: pytest.MonkeyPatch, modules: set[str]) -> None:
    monkey: Any = ModuleType("gevent.monkey")
    monkey.is_module_patched = modules.__contains__
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)


def test_patched_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, {"socket", "threading"})
    with Coordinator() as coordinator:
        token = coordinator.submit(pow, 2, 3)
        with pytest.raises(TokenKilled, match=r"gevent has patched threading.*thread=False"):
            token.result(20)


def test_unpatched_threads_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, {"socket"})
    with Coordinator() as coordinator:
        assert coordinator.submit(pow, 2, 3).result(20) == 8
