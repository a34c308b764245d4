"""What a sweep measured, block by block, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from .intervals import Interval, interval
from .knee import Knee, compare, find_knee
from .measure import Sample
from .setting import Setting

__all__ = ["Row", "SweepRun"]


@dataclass(frozen=True, slots=True)
class Row:
    """One setting over all complete blocks. Times in seconds."""

    setting: Setting
    throughput: Interval
    """Tokens per second."""
    latency_p99: Interval
    """Of the p99 latencies of the blocks."""
    latency_p50: float
    """The median of the blocks, as the next."""
    lag_p99: float
    throttled: float | None
    """In all blocks together; None: no quota, or not readable."""
    ratio: Interval
    """Throughput / that of the lane's best setting, within blocks."""


@dataclass(slots=True)
class SweepRun:
    """Everything one sweep measured; valid at any moment.

    Figures are of complete blocks alone: a part of a block would compare settings measured at
    different times.
    """

    settings: tuple[Setting, ...]
    blocks: int
    """Planned."""
    task: str
    seconds: float
    """For each setting in each block."""
    seed: int
    complete: list[Mapping[Setting, Sample]] = field(default_factory=list)
    part: dict[Setting, Sample] = field(default_factory=dict)
    """The block under way."""
    interrupted: bool = False

    def add(self, setting: Setting, sample: Sample) -> None:
        """Keep one more measurement of the block under way."""
        self.part[setting] = sample
        if len(self.part) == len(self.settings):
            self.complete.append(self.part)
            self.part = {}

    @property
    def planned(self) -> int:
        """Measurements of a complete run."""
        return len(self.settings) * self.blocks

    @property
    def measured(self) -> int:
        """Measurements so far, those of the block under way included."""
        return len(self.complete) * len(self.settings) + len(self.part)

    @property
    def lanes(self) -> tuple[str, ...]:
        """In the order of the catalogue."""
        return tuple(dict.fromkeys(setting.lane for setting in self.settings))

    def samples(self, setting: Setting) -> list[Sample]:
        """Of one setting, block by block."""
        return [block[setting] for block in self.complete]

    def rows(self) -> list[Row]:
        """One for each setting, by lane, then by cost; empty without a complete block."""
        if not self.complete:
            return []
        return [row for lane in self.lanes for row in self._rows_of(lane)]

    def _rows_of(self, lane: str) -> list[Row]:
        rates = self._throughputs(lane)
        best = max(rates, key=lambda setting: median(rates[setting]))
        rows = []
        for setting in rates:
            samples = self.samples(setting)
            throttled = [each.throttled for each in samples if each.throttled is not None]
            rows.append(
                Row(
                    setting=setting,
                    throughput=interval(rates[setting]),
                    latency_p99=interval([each.latency_p99 for each in samples]),
                    latency_p50=median(each.latency_p50 for each in samples),
                    lag_p99=median(each.lag_p99 for each in samples),
                    throttled=sum(throttled) if throttled else None,
                    ratio=compare(rates[setting], rates[best]),
                )
            )
        return rows

    def knee(self, lane: str | None = None) -> Knee | None:
        """Of one lane, or of all together; None while there are too few blocks."""
        return find_knee(self._throughputs(lane))

    def failures(self) -> tuple[int, str | None]:
        """How many tokens failed, and what went wrong with the first of them."""
        samples = [each for block in (*self.complete, self.part) for each in block.values()]
        problems = [each.problem for each in samples if each.problem is not None]
        return sum(each.failed for each in samples), problems[0] if problems else None

    def _throughputs(self, lane: str | None) -> dict[Setting, list[float]]:
        return {
            setting: [each.throughput for each in self.samples(setting)]
            for setting in self.settings
            if lane is None or setting.lane == lane
        }
