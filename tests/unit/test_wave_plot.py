from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from tokengate.wave.environment import Environment
from tokengate.wave.record import WaveRun, WaveSample

pytest.importorskip("matplotlib")

import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tokengate.wave.plot import draw, write_plot

pytestmark = pytest.mark.same_everywhere

ENVIRONMENT = Environment(
    tokengate="1.2.3",
    python="CPython 3.14.0",
    gil="free-threaded build with the GIL on",
    system="Linux x86_64",
    usable_cpus=128,
    physical_cores=64,
    workers="thread lane, 64 workers",
)


def run_of(
    sizes: tuple[int, ...], *, repeats: int = 1, knee: int = 64, rate: int = 4_000
) -> WaveRun:
    run = WaveRun(sizes=sizes, repeats=repeats)
    for repeat in range(repeats):
        for number, size in enumerate(sizes):
            seconds = size / (rate * min(1.0, size / knee)) * (1 + repeat / 20)
            run.add(
                WaveSample(
                    tokens=size,
                    ok=size,
                    failures={},
                    seconds=seconds,
                    cpu_seconds=seconds * 0.97,
                    task_seconds=seconds * (2 + 4 * number),
                    lag_p99=0.005,
                    lag_max=0.008,
                )
            )
    return run


DOUBLING = tuple(4 << step for step in range(24))

RUNS = {
    "default": run_of(DOUBLING[:15]),
    "repeated": run_of(DOUBLING[:15], repeats=3),
    "late sweet spot": run_of(DOUBLING[:15], knee=65_536),
    "sweet spot in the middle": run_of(DOUBLING[:15], knee=1_024),
    "fast": run_of(DOUBLING[:15], rate=40_000_000),
    "most waves": run_of(DOUBLING),
    "one wave": run_of((4,)),
    "crowded": run_of((1_000, 1_001, 1_500, 65_536, 65_537)),
}


def visible_texts(figure: Figure) -> Iterator[Text]:
    # Labels of ticks beyond the ends of an axis exist, but are never drawn.
    unseen = {
        tick.label1
        for axes in figure.axes
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for tick in axis.get_major_ticks()
        if not low <= tick.get_loc() <= high
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and text not in unseen:
            yield text


@pytest.mark.parametrize("name", RUNS)
def test_no_text_overlaps_another(name: str) -> None:
    figure = draw(RUNS[name], ENVIRONMENT)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in visible_texts(figure)
    ]
    assert len(drawn) > 20
    for (one, box), (other, other_box) in combinations(drawn, 2):
        assert not box.overlaps(other_box), f"{one!r} overlaps {other!r}"


def test_sweet_spot_plateau_and_units_are_in_the_picture() -> None:
    texts = {text.get_text() for text in visible_texts(draw(RUNS["default"], ENVIRONMENT))}
    assert "Sweet spot: 64 tokens at once, 4,000 per second" in texts
    assert "sweet spot: 64; plateau to 65,536 (90% of the best)" in texts
    assert {"tokens per second", "ms per token", "seconds per wall second"} <= texts
    assert {"Throughput", "Latency", "Overlap and CPU"} <= texts
    assert ENVIRONMENT.describe() in texts


def test_dips_in_the_plateau_are_not_hidden() -> None:
    run = run_of((4, 8, 16), knee=1)
    run.samples[8] = run_of((8,), knee=100).samples[8]
    texts = {text.get_text() for text in visible_texts(draw(run, ENVIRONMENT))}
    assert "sweet spot: 4; plateau to 16 (90% of the best, dips aside)" in texts


def test_curves_show_what_was_measured() -> None:
    run = RUNS["default"]
    rate, latency, parallel = draw(run, ENVIRONMENT).axes
    samples = [row.sample for row in run.rows()]
    sizes = [sample.tokens for sample in samples]
    for axes, measured in (
        (rate, [sample.throughput for sample in samples]),
        (latency, [sample.latency * 1e3 for sample in samples]),
        (parallel, [sample.overlap for sample in samples]),
        (parallel, [sample.cpu for sample in samples]),
    ):
        curves = [numpy.asarray(line.get_xydata()).tolist() for line in axes.lines]
        assert [list(point) for point in zip(sizes, measured, strict=True)] in curves
    assert rate.get_xscale() == "log"


def test_the_file_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "wave.png"
    write_plot(path, RUNS["default"], ENVIRONMENT)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")


def test_nothing_measured_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        write_plot(tmp_path / "wave.png", WaveRun(sizes=(4,)), ENVIRONMENT)


def test_an_unknown_format_is_an_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="xyz"):
        write_plot(tmp_path / "wave.xyz", RUNS["one wave"], ENVIRONMENT)
