"""The live progress line: on a terminal only, on stderr, so that redirected output stays clean."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from typing import TextIO

REFRESH = 0.2
"""Seconds between two refreshes; each costs the loop some tens of microseconds."""


class ProgressLine:
    """One line that overwrites itself; does nothing where `stream` is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream
        self._shown = 0
        self.live: bool = stream.isatty()

    def show(self, text: str) -> None:
        """Replace the line by `text`, cut to the terminal's width."""
        if not self.live:
            return
        # One column stays free: a full line wraps on some terminals, and then cannot be undone.
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._shown))
        self._stream.flush()
        self._shown = len(text)

    def clear(self) -> None:
        """Remove the line, so that other output can take its place."""
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0


class Ticker:
    """Shows ``text()`` on a progress line again and again while the loop runs (``with``)."""

    def __init__(self, line: ProgressLine, text: Callable[[], str]) -> None:
        """Ask `text` for what to show; it runs on the loop and should be quick."""
        self._line = line
        self._text = text
        self._handle: asyncio.Handle | None = None

    def __enter__(self) -> None:
        if self._line.live:
            self._tick(asyncio.get_running_loop())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._line.show(self._text())
        self._handle = loop.call_later(REFRESH, self._tick, loop)

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
