"""What a run measured, and the figures that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .sweet_spot import SweetSpot, find_sweet_spot


@dataclass(frozen=True, slots=True)
class WaveSample:
    """One wave, measured once. Times in seconds."""

    tokens: int
    ok: int
    failures: Mapping[str, int]
    """Kind of failure -> how many tokens."""
    seconds: float
    """First submit to last result."""
    cpu_seconds: float
    task_seconds: float
    lag_p99: float
    lag_max: float
    plain_seconds: float | None = None
    """The same calls in a plain loop, right before or after; None where that was not measured."""
    plain_cpu_seconds: float | None = None

    @property
    def failed(self) -> int:
        """Tokens that raised or returned something wrong."""
        return sum(self.failures.values())

    @property
    def throughput(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    @property
    def latency(self) -> float:
        """Seconds per token."""
        return self.seconds / self.tokens

    @property
    def overlap(self) -> float:
        """Task execution seconds per wall second; waiting for the GIL counts as execution."""
        return self.task_seconds / self.seconds

    @property
    def cpu(self) -> float:
        """CPU seconds per wall second: how many cores were really at work."""
        return self.cpu_seconds / self.seconds


@dataclass(frozen=True, slots=True)
class WaveRow:
    """One wave as reported: the repeat of median time, beside the other waves."""

    wave: int
    """1 for the first."""
    sample: WaveSample
    conc: float | None
    """Latency of wave 1 / latency of this one; None where wave 1 was not measured."""
    x2: float | None
    """Time / time of the wave before; None unless that had half as many tokens."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over everything recorded, repeats included, and peaks over the reported rows."""

    tokens: int
    ok: int
    failed: int
    seconds: float
    latency: float
    """Seconds per token, averaged over all tokens."""
    peak_conc: tuple[float, int]
    """The figure and the wave that had it; so with the other peaks."""
    peak_overlap: tuple[float, int]
    peak_cpu: tuple[float, int]


@dataclass(frozen=True, slots=True)
class PlainComparison:
    """The waves against the same calls in a plain loop, over the waves that have both."""

    calls: int
    token_seconds: float
    token_cpu_seconds: float
    plain_seconds: float
    plain_cpu_seconds: float

    @property
    def ratio(self) -> float:
        """Time of the waves / time of the plain loop; below 1 the waves were faster."""
        return self.token_seconds / self.plain_seconds

    @property
    def token_cpu(self) -> float:
        """Cores the waves kept at work."""
        return self.token_cpu_seconds / self.token_seconds

    @property
    def plain_cpu(self) -> float:
        """Cores the plain loop kept at work: 1, unless other programs kept it off its core."""
        return self.plain_cpu_seconds / self.plain_seconds


@dataclass(slots=True)
class WaveRun:
    """Everything one run measured; filled wave by wave, valid at any moment."""

    sizes: tuple[int, ...]
    repeats: int = 1
    samples: dict[int, list[WaveSample]] = field(default_factory=dict)
    """Wave size -> its repeats in the order they ran."""
    interrupted: bool = False

    def add(self, sample: WaveSample) -> None:
        """Keep one more measurement."""
        self.samples.setdefault(sample.tokens, []).append(sample)

    @property
    def measured(self) -> int:
        """Tokens recorded so far."""
        return sum(sample.tokens for sample in self.all_samples())

    @property
    def planned(self) -> int:
        """Tokens a complete run records."""
        return sum(self.sizes) * self.repeats

    def all_samples(self) -> list[WaveSample]:
        """Every measurement, by wave, then by repeat."""
        return [sample for size in self.sizes for sample in self.samples.get(size, ())]

    def rows(self) -> list[WaveRow]:
        """One row for each wave that was measured at least once."""
        chosen = {
            size: middle(repeats) for size in self.sizes if (repeats := self.samples.get(size))
        }
        first = chosen.get(self.sizes[0])
        rows = []
        for number, size in enumerate(self.sizes, start=1):
            sample = chosen.get(size)
            if sample is None:
                continue
            before = chosen.get(self.sizes[number - 2]) if number > 1 else None
            rows.append(
                WaveRow(
                    wave=number,
                    sample=sample,
                    conc=first.latency / sample.latency if first else None,
                    x2=sample.seconds / before.seconds
                    if before and size == 2 * before.tokens
                    else None,
                )
            )
        return rows

    def totals(self) -> Totals | None:
        """The totals; None if nothing was measured."""
        samples = self.all_samples()
        if not samples:
            return None
        rows = self.rows()
        tokens = sum(sample.tokens for sample in samples)
        seconds = sum(sample.seconds for sample in samples)
        return Totals(
            tokens=tokens,
            ok=sum(sample.ok for sample in samples),
            failed=sum(sample.failed for sample in samples),
            seconds=seconds,
            latency=seconds / tokens,
            peak_conc=max(((row.conc or 0.0, row.wave) for row in rows), key=_figure),
            peak_overlap=max(((row.sample.overlap, row.wave) for row in rows), key=_figure),
            peak_cpu=max(((row.sample.cpu, row.wave) for row in rows), key=_figure),
        )

    def failures(self) -> Counter[str]:
        """Kind of failure -> tokens, over everything recorded."""
        total: Counter[str] = Counter()
        for sample in self.all_samples():
            total.update(sample.failures)
        return total

    def sweet_spot(self) -> SweetSpot | None:
        """Sweet spot and plateau by median throughput; None if nothing was measured."""
        if not self.samples:
            return None
        return find_sweet_spot(
            {
                size: [sample.throughput for sample in repeats]
                for size, repeats in self.samples.items()
            }
        )

    def plain_comparison(self) -> PlainComparison | None:
        """Waves against the plain loop; None if no wave was measured both ways."""
        pairs = [
            (sample, sample.plain_seconds, sample.plain_cpu_seconds)
            for sample in self.all_samples()
            if sample.plain_seconds is not None and sample.plain_cpu_seconds is not None
        ]
        if not pairs:
            return None
        return PlainComparison(
            calls=sum(sample.tokens for sample, _, _ in pairs),
            token_seconds=sum(sample.seconds for sample, _, _ in pairs),
            token_cpu_seconds=sum(sample.cpu_seconds for sample, _, _ in pairs),
            plain_seconds=sum(seconds for _, seconds, _ in pairs),
            plain_cpu_seconds=sum(cpu_seconds for _, _, cpu_seconds in pairs),
        )


def middle(repeats: Sequence[WaveSample]) -> WaveSample:
    """The repeat of median time, the faster of the two middle ones if their number is even.

    A row shows one repeat that really happened: medians column by column would not fit together.
    """
    ranked = sorted(repeats, key=lambda sample: sample.seconds)
    return ranked[(len(ranked) - 1) // 2]


def _figure(peak: tuple[float, int]) -> float:
    return peak[0]
