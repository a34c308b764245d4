"""`inline`: guarded calls run at once, in the caller's thread."""

from __future__ import annotations

from contextlib import suppress
from contextvars import Token as Reset
from types import TracebackType

from tokengate import _core

__all__ = ["inline"]


class inline:  # noqa: N801 - reads like the statement it stands for
    """``with inline():`` makes every call inside run at once, in the thread that makes it.

    Guarded calls, `Coordinator.submit`, `.map`, `.starmap` and calls made by the functions they run
    return tokens that have ended already. They are ordinary tokens of the coordinator they would
    have run on anyway, with its policies, statistics, deadlines and errors; the function sees what
    it would see on a worker: its `current_token()`, a copy of the caller's context, no event loop.

    A call that may not start - its operation is paused, or limit and key have no place, which only
    functions that are still running can hold - gives a token that waits, and that the `resume`,
    `configure` or return which lets it start runs, in the thread that does this. `.map` calls its
    function only when its consumer asks for the next item. How many workers there are and the
    priorities of what waits mean nothing here.

    Holds for the current context: for tasks started inside and whatever else copies it
    (`asyncio.to_thread`), not for other threads; ends with the block for all of them. Blocks nest.
    A function that never returns does not let its caller go on either, and Ctrl-C while it runs
    is raised to that caller.
    """

    def __init__(self) -> None:
        self._entered: list[tuple[_core.InlineBlock, Reset[_core.InlineBlock]]] = []

    def __enter__(self) -> None:
        block = _core.InlineBlock()
        self._entered.append((block, _core._inline_var.set(block)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        block, reset = self._entered.pop()
        block.leave()
        with suppress(ValueError):  # left in another context (a fixture's): it is over there, too
            _core._inline_var.reset(reset)
