"""What the options of the benchmark commands have in common: their words, the files they name."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "NO_MATPLOTLIB",
    "check_files",
    "numbers",
    "positive",
    "say",
    "words",
]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended."""

NO_MATPLOTLIB = '--plot needs matplotlib, which is not installed: pip install "py-tokengate[bench]"'


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def words(text: str) -> tuple[str, ...]:
    """The parts of a list such as ``a,b``."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> tuple[int, ...]:
    """The whole numbers of a list such as ``4,8``."""
    return tuple(int(word) for word in words(text))


def check_files(parser: argparse.ArgumentParser, plot: Path | None, *others: Path | None) -> None:
    """Leave with status 2 where a file could not be written: now, not after minutes of measuring.

    plot: of the picture, which needs matplotlib.
    """
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error(NO_MATPLOTLIB)
    for path in (plot, *others):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"{path}: no such directory: {path.absolute().parent}")


def say(*lines: str) -> None:
    """Print lines. Flushed line by line: a run takes minutes, and its reader may be a pipe."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
