"""The event loops to measure on: asyncio's own and uvloop, both open in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from _harness import Missing


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        raise Missing(
            "uvloop is not installed (pip install uvloop): no figures on uvloop"
        ) from None
    return uvloop.new_event_loop


FACTORIES: dict[str, Callable[[], Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": lambda: asyncio.SelectorEventLoop,
    "uvloop": _uvloop_factory,
}


@contextmanager
def open_loops(skipped: list[str]) -> Iterator[dict[str, asyncio.Runner]]:
    """One runner per loop kind, open side by side, so that rounds on them can be interleaved.

    A kind that is not installed is left out and named in `skipped`. asyncio's own loop is the
    selector loop by name, because the default differs between systems.
    """
    with ExitStack() as stack:
        runners: dict[str, asyncio.Runner] = {}
        for kind, factory in FACTORIES.items():
            try:
                runners[kind] = stack.enter_context(asyncio.Runner(loop_factory=factory()))
            except Missing as missing:
                skipped.append(str(missing))
        yield runners
