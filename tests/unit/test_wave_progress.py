import asyncio
import io
import shutil

import pytest

from tokengate.wave import progress
from tokengate.wave.progress import ProgressLine, Ticker


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_shorter_text_erases_the_longer_one() -> None:
    terminal = Terminal()
    line = ProgressLine(terminal)
    line.show("wave 10")
    line.show("done")
    assert terminal.getvalue() == "\rwave 10\rdone   "


def test_clear_leaves_an_empty_line_once() -> None:
    terminal = Terminal()
    line = ProgressLine(terminal)
    line.show("wave")
    line.clear()
    line.clear()
    assert terminal.getvalue() == "\rwave\r    \r"


def test_a_long_text_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    assert shutil.get_terminal_size().columns == 10
    terminal = Terminal()
    ProgressLine(terminal).show("0123456789abc")
    assert terminal.getvalue() == "\r012345678"


async def test_nothing_is_written_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    line = ProgressLine(file)
    with Ticker(line, lambda: "wave"):
        line.show("wave")
        line.clear()
    assert not line.live
    assert file.getvalue() == ""


async def test_a_ticker_refreshes_the_line_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each turn of the loop is a tick.
    monkeypatch.setattr(progress, "REFRESH", 0)
    terminal = Terminal()
    texts = iter(["one", "two", "three", "four"])
    third = asyncio.Event()

    def text() -> str:
        shown = next(texts)
        if shown == "three":
            third.set()
        return shown

    with Ticker(ProgressLine(terminal), text):
        await third.wait()
    shown_at_the_end = terminal.getvalue()
    assert shown_at_the_end.startswith("\rone\rtwo\rthree")
    for _ in range(3):
        await asyncio.sleep(0)
    assert terminal.getvalue() == shown_at_the_end
