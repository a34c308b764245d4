"""Lists of CPU ids as the system writes them: ``0,2-5``."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["format_cpus", "is_number", "parse_cpus"]


def is_number(text: str) -> bool:
    """Whether `text` is a whole number in ASCII digits, none of them a sign."""
    # Nine digits: beyond any sensible number here, and short of Python's limit on conversion.
    return text.isascii() and text.isdigit() and len(text) <= 9


def parse_cpus(text: str) -> frozenset[int]:
    """CPU ids of a list such as ``0,2-5``. ValueError names the part that is none."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not is_number(first) or (dash and not is_number(last)):
            raise ValueError(f"{part.strip()!r} is not a CPU id or a range of them")
        low, high = int(first), int(last or first)
        if not low <= high < 65536:
            raise ValueError(f"{part.strip()!r} is not an ascending range of CPU ids")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def format_cpus(cpus: Iterable[int]) -> str:
    """The reverse of `parse_cpus`, for messages."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
