"""What a benchmark section hands back: figures with their targets, tables, and what was skipped."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A bound a figure must keep, ``at most`` or ``at least``; `aim` is what we would like."""

    sense: Literal["at most", "at least"]
    bound: float
    aim: float | None = None

    def kept_by(self, value: float) -> bool:
        """Whether `value` is on the right side of the bound."""
        return value <= self.bound if self.sense == "at most" else value >= self.bound

    def margin(self, value: float) -> float:
        """`value` against the bound so that 1.00 or more passes, in either sense."""
        high, low = (self.bound, value) if self.sense == "at most" else (value, self.bound)
        return high / low if low > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: the median of `samples` (one a round), in `unit`.

    `target` is None for a figure that only stands beside another one.
    """

    what: str
    unit: str
    samples: tuple[float, ...]
    target: Target | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.samples)

    @property
    def verdict(self) -> str:
        """``pass``, ``falls short``, or nothing for a figure without a target."""
        if self.target is None:
            return ""
        return "pass" if self.target.kept_by(self.value) else "falls short"


@dataclass(frozen=True, slots=True)
class Line:
    """One contestant's line in a table: what one call cost, per round, in microseconds."""

    name: str
    count: int
    micros: tuple[float, ...]


@dataclass(slots=True)
class Section:
    """Everything one section measured. `explanation` says in plain words what was timed."""

    name: str
    explanation: str
    figures: list[Figure] = field(default_factory=list)
    lines: dict[str, list[Line]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, each figure with its median, its verdict and all samples.

        JSON has no infinity and no "not a number": such a margin is written as null.
        """
        data = asdict(self)
        for figure, plain in zip(self.figures, data["figures"], strict=True):
            target = figure.target
            margin = target.margin(figure.value) if target is not None else math.inf
            plain["value"] = figure.value
            plain["margin"] = margin if math.isfinite(margin) else None
            plain["verdict"] = figure.verdict or None
        for lines in data["lines"].values():
            for line in lines:
                line["median"] = statistics.median(line["micros"])
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Section:
        """The section a child process measured, from its `as_dict`."""
        return cls(
            name=data["name"],
            explanation=data["explanation"],
            figures=[
                Figure(
                    what=figure["what"],
                    unit=figure["unit"],
                    samples=tuple(figure["samples"]),
                    target=None if figure["target"] is None else Target(**figure["target"]),
                    note=figure["note"],
                )
                for figure in data["figures"]
            ],
            lines={
                title: [Line(line["name"], line["count"], tuple(line["micros"])) for line in lines]
                for title, lines in data["lines"].items()
            },
            remarks=list(data["remarks"]),
            skipped=list(data["skipped"]),
        )


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Round by round `above` / `below`: rounds share the machine's mood, their medians need not."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def beside(
    add: Callable[[Figure], None], what: str, unit: str, samples: dict[str, tuple[float, ...]]
) -> None:
    """Each contestant's own figure."""
    for name, values in samples.items():
        add(Figure(f"{what}: {name}", unit, values))


def against(
    add: Callable[[Figure], None],
    what: str,
    above: tuple[float, ...],
    ours: tuple[float, ...],
    target: Target | None,
    name: str,
) -> None:
    """How many times as fast ours is, round by round."""
    add(Figure(f"{what}: times as fast as {name}", "x", ratios(above, ours), target))
