"""Lanes are tested with functions that workers can import: those of `lane_functions`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokengate import Coordinator, use

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


@pytest.fixture
def lanes(request: pytest.FixtureRequest, new_coordinator: Any) -> Iterator[Coordinator]:
    """A coordinator which calls made in the test use, with the module's `WORKERS`.

    By default those are two worker processes.
    """
    workers = getattr(request.module, "WORKERS", {"process_workers": 2})
    coordinator = new_coordinator(stop_timeout=20.0, **workers)
    with use(coordinator):
        yield coordinator
