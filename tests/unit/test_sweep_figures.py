"""What follows from the figures of a sweep: the knee, the table, JSON, the profile, the picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tokengate.profile import LaneProfile, this_build, this_machine
from tokengate.sweep import report
from tokengate.sweep.export import as_json, as_profile, write_json
from tokengate.sweep.knee import NEAR, compare, find_knee
from tokengate.sweep.measure import Sample
from tokengate.sweep.record import SweepRun
from tokengate.sweep.setting import Setting
from tokengate.wave.environment import Environment

if TYPE_CHECKING:
    from tokengate.machine.pinning import Pin

ENVIRONMENT = Environment(
    tokengate="1.2.3",
    python="CPython 3.14.0",
    gil="with the GIL",
    system="Linux x86_64",
    usable_cpus=8,
    physical_cores=4,
    workers="task mix",
)


def setting(workers: int, in_flight: int = 8, lane: str = "thread", pin: Pin = "auto") -> Setting:
    return Setting(lane, workers, in_flight, pin)


def sample(rate: float, **changes: Any) -> Sample:
    values: dict[str, Any] = {
        "tokens": round(rate),
        "failed": 0,
        "problem": None,
        "seconds": 1.0,
        "latency_p50": 1 / rate,
        "latency_p99": 4 / rate,
        "lag_p99": 0.002,
        "throttled": None,
        **changes,
    }
    return Sample(**values)


def sweep_of(rates: Mapping[Setting, Sequence[float]], **changes: Any) -> SweepRun:
    """Setting -> throughput in each block."""
    blocks = len(next(iter(rates.values())))
    run = SweepRun(tuple(rates), blocks, "mix", 1.0, 7)
    for block in range(blocks):
        for each in rates:
            run.add(each, sample(rates[each][block], **changes))
    return run


ONE, TWO, FOUR, EIGHT = (setting(workers) for workers in (1, 2, 4, 8))
STEADY = {
    ONE: [100, 101, 99, 100, 102, 98],
    TWO: [200, 201, 199, 200, 202, 198],
    FOUR: [400, 402, 398, 401, 399, 400],
    EIGHT: [401, 399, 400, 402, 403, 397],
}


# -- the knee ----------------------------------------------------------------------------------


def test_the_knee_is_the_smallest_that_can_not_be_told_from_the_best() -> None:
    knee = find_knee(STEADY)
    assert knee is not None
    assert (knee.setting, knee.best) == (FOUR, EIGHT)
    assert knee.ratio.low is not None
    assert knee.ratio.high is not None
    assert knee.ratio.low < 1 < knee.ratio.high


def test_what_is_slower_in_every_block_is_not_the_knee_however_little() -> None:
    rates = {ONE: [97, 98, 96, 97, 98, 97], TWO: [100] * 6}
    knee = find_knee(rates)
    assert knee is not None
    assert knee.setting == TWO


def test_blocks_are_compared_within_so_that_a_busy_machine_does_not_hide_a_difference() -> None:
    """The intervals of the throughputs overlap widely, those of the ratios do not."""
    busy = [1.0, 0.2, 0.9, 0.3, 1.0, 0.5]
    rates = {ONE: [80 * each for each in busy], TWO: [100 * each for each in busy]}
    run = sweep_of(rates)
    small, large = run.rows()
    assert small.throughput.high is not None
    assert large.throughput.low is not None
    assert small.throughput.high > large.throughput.low
    assert small.ratio.high == pytest.approx(0.8)
    knee = run.knee()
    assert knee is not None
    assert knee.setting == TWO


def test_noise_does_not_make_a_knee_of_what_is_far_below_the_best() -> None:
    """The interval reaches 1 by one lucky block; the median says otherwise."""
    rates = {ONE: [50, 50, 50, 50, 50, 200], TWO: [100] * 6}
    assert compare(rates[ONE], rates[TWO]).high == 2.0
    knee = find_knee(rates)
    assert knee is not None
    assert knee.setting == TWO
    nearly = {ONE: [100 * NEAR] * 5 + [200.0], TWO: [100.0] * 6}
    knee = find_knee(nearly)
    assert knee is not None
    assert knee.setting == ONE


def test_of_equals_the_smaller_is_best_and_knee() -> None:
    knee = find_knee({EIGHT: [100.0] * 6, ONE: [100.0] * 6})
    assert knee is not None
    assert (knee.setting, knee.best) == (ONE, ONE)


def test_smaller_is_said_of_lane_then_workers_then_calls_then_pinning() -> None:
    ordered = [
        setting(2, 8),
        setting(2, 8, pin="core"),
        setting(2, 16),
        setting(4, 4),
        setting(1, 1, lane="process"),
    ]
    shuffled = [ordered[place] for place in (3, 1, 4, 0, 2)]
    assert sorted(shuffled, key=lambda each: each.cost) == ordered


def test_too_few_blocks_have_no_knee() -> None:
    assert find_knee({each: rates[:5] for each, rates in STEADY.items()}) is None
    assert find_knee({}) is None


def test_a_block_in_which_nothing_was_answered_can_be_compared() -> None:
    ratios = compare([5.0, 0.0, 5.0], [0.0, 0.0, 10.0])
    assert ratios.median == 1.0
    assert compare([5.0], [0.0]).median == inf


# -- the record --------------------------------------------------------------------------------


def test_figures_are_of_complete_blocks_alone() -> None:
    run = sweep_of(STEADY)
    run.blocks = 9
    run.add(ONE, sample(1_000_000))
    assert (run.measured, run.planned) == (25, 36)
    assert run.rows()[0].throughput.median == 100
    assert len(run.samples(ONE)) == 6


def test_each_lane_is_compared_with_its_own_best() -> None:
    process = setting(2, lane="process")
    run = sweep_of({**STEADY, process: [800.0] * 6})
    assert run.lanes == ("thread", "process")
    assert [row.ratio.median for row in run.rows()] == pytest.approx([0.25, 0.5, 1, 1, 1], abs=0.01)
    found = {lane: run.knee(lane) for lane in run.lanes}
    assert {lane: knee and knee.setting for lane, knee in found.items()} == {
        "thread": FOUR,
        "process": process,
    }
    overall = run.knee()
    assert overall is not None
    assert overall.setting == process


def test_throttled_time_adds_up_where_it_can_be_read() -> None:
    assert sweep_of({ONE: [1.0] * 6}, throttled=0.25).rows()[0].throttled == 1.5
    assert sweep_of({ONE: [1.0] * 6}).rows()[0].throttled is None


# -- the text ----------------------------------------------------------------------------------


def test_a_row_has_every_figure_under_its_name() -> None:
    run = sweep_of(STEADY, throttled=0.5)
    lines = report.table_lines(run)
    assert " ".join(lines[0].split()) == (
        "Lane Workers InFlight Pin Tok/s 95% OfBest Lat50(ms) Lat99(ms) 95% Lag99(ms) Thr(s)"
    )
    assert lines[2].split() == (
        [
            "thread",
            "1",
            "8",
            "auto",
            "100",
            "98",
            "-",
            "102",
            "0.25",
            "10.00",
            "40.00",
            "39.22",
            "-",
            "40.82",
            "2.00",
            "3.00",
        ]
    )
    assert [line[0] for line in lines[2:]] == [" ", " ", "*", " "]
    assert len({len(line) for line in lines}) == 1


def test_the_summary_tells_the_knees() -> None:
    process = setting(2, lane="process", pin="core")
    run = sweep_of({**STEADY, process: [800.0] * 6})
    lines = report.summary_lines(run, ENVIRONMENT)
    assert lines[0].startswith("Knee of the thread lane: 4 workers, 8 in flight: 1.00 (")
    assert "of the best, thread lane, 8 workers, 8 in flight" in lines[0]
    assert lines[1] == "Knee of the process lane: 2 workers, 8 in flight, pin core (the best)"
    assert lines[2] == "Of all: process lane, 2 workers, 8 in flight, pin core (the best)"
    assert f"Measured on {ENVIRONMENT.describe()}." in lines
    assert lines[-1] == report.MEANING


def test_a_sweep_stopped_early_says_so() -> None:
    run = sweep_of({each: rates[:2] for each, rates in STEADY.items()})
    run.blocks, run.interrupted = 10, True
    text = "\n".join(report.summary_lines(run, ENVIRONMENT))
    assert "Stopped early: the figures are of the 2 complete blocks of 10." in text
    assert "No knee: 2 blocks are too few" in text
    assert " 401 " in report.table_lines(run)[4]  # the medians are there all the same
    nothing = SweepRun((ONE,), 10, "mix", 1.0, 7, interrupted=True)
    assert report.table_lines(nothing) == []
    assert "nothing to compare" in report.summary_lines(nothing, ENVIRONMENT)[0]


def test_failures_and_a_quota_are_told() -> None:
    failing = sweep_of({ONE: [100.0] * 6}, failed=2, problem="wait: ValueError: no")
    text = "\n".join(report.summary_lines(failing, ENVIRONMENT))
    assert "12 tokens failed, the first with wait: ValueError: no" in text
    throttled = sweep_of({ONE: [100.0] * 6}, throttled=0.1)
    assert "A CPU quota" in "\n".join(report.summary_lines(throttled, ENVIRONMENT))
    assert "A CPU quota" not in "\n".join(report.summary_lines(sweep_of(STEADY), ENVIRONMENT))


def test_the_title_has_what_is_needed_to_repeat_it() -> None:
    assert report.title(sweep_of(STEADY)) == (
        "TokenGate sweep: 4 settings (thread) x 6 blocks in random order, 1 s each; task mix; seed 7"
    )


# -- files -------------------------------------------------------------------------------------


def test_everything_measured_and_derived_is_written(tmp_path: Path) -> None:
    run = sweep_of(STEADY)
    path = tmp_path / "sweep.json"
    write_json(path, run, ENVIRONMENT)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data == json.loads(json.dumps(as_json(run, ENVIRONMENT)))
    assert data["machine"] == asdict(this_machine())
    assert data["blocks"] == {"planned": 6, "complete": 6}
    assert (data["task"], data["seed"], data["seconds"]) == ("mix", 7, 1.0)
    first = data["settings"][0]
    assert (first["lane"], first["workers"], first["in_flight"]) == ("thread", 1, 8)
    assert first["throughput"] == {"median": 100, "low": 98, "high": 102}
    assert [each["throughput"] for each in first["samples"]] == STEADY[ONE]
    assert data["knee"]["workers"] == data["knees"]["thread"]["workers"] == 4
    assert data["knee"]["best"]["workers"] == 8


def test_the_profile_is_the_knee_of_each_lane() -> None:
    process = setting(2, 32, lane="process", pin="core")
    profile = as_profile(sweep_of({**STEADY, process: [800.0] * 6}))
    assert profile is not None
    assert profile.lane == "process"
    assert profile.lanes == {
        "thread": LaneProfile(4, 8, "auto"),
        "process": LaneProfile(2, 32, "core"),
    }
    assert (profile.machine, profile.python) == (this_machine(), this_build())


def test_no_profile_comes_of_too_few_blocks_or_of_failures() -> None:
    assert as_profile(sweep_of({ONE: [100.0] * 5})) is None
    assert as_profile(sweep_of({ONE: [100.0] * 6}, failed=1, problem="x")) is None


# -- the picture -------------------------------------------------------------------------------


def lanes_of(count: int) -> dict[Setting, Sequence[float]]:
    return {
        setting(workers, in_flight, lane): [
            1_000.0 * workers * (1 + block / 40) * (1 if in_flight > 8 else 0.7)
            for block in range(8)
        ]
        for lane in ("thread", "process")[:count]
        for workers in (1, 2, 4, 8, 16, 32, 64)
        for in_flight in (8, 32, 128)
    }


@pytest.mark.parametrize("lanes", [1, 2])
def test_no_text_of_the_picture_overlaps_another(lanes: int) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    from tokengate.sweep.plot import draw

    figure = draw(sweep_of(lanes_of(lanes)), ENVIRONMENT)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in cast("list[Text]", figure.findobj(Text))
        if text.get_visible() and text.get_text().strip()
    ]
    # labels of ticks beyond the ends of an axis exist, but are never drawn
    shown = [
        (text, box) for text, box in boxes if not text.replace(",", "").replace(".", "").isdigit()
    ]
    assert len(shown) > 10
    for (one, box), (other, other_box) in combinations(shown, 2):
        assert not box.overlaps(other_box), f"{one!r} overlaps {other!r}"
    assert "Knee: thread lane, 64 workers, 32 in flight" in [text for text, _ in shown]


def test_the_file_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tokengate.sweep.plot import write_plot

    path = tmp_path / "sweep.png"
    write_plot(path, sweep_of(STEADY), ENVIRONMENT)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    few = sweep_of({each: rates[:2] for each, rates in STEADY.items()})
    write_plot(path, few, ENVIRONMENT)
    with pytest.raises(ValueError, match="nothing to draw"):
        write_plot(path, SweepRun((ONE,), 6, "mix", 1.0, 7), ENVIRONMENT)
