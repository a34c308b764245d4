import pytest

from tokengate.wave.record import WaveRun, WaveSample, middle


def sample(
    tokens: int,
    seconds: float,
    *,
    failed: int = 0,
    cpu: float = 0.0,
    tasks: float = 0.0,
    plain: float | None = None,
) -> WaveSample:
    return WaveSample(
        tokens=tokens,
        ok=tokens - failed,
        failures={"bad: ValueError: no": failed} if failed else {},
        seconds=seconds,
        cpu_seconds=cpu,
        task_seconds=tasks,
        lag_p99=0.001,
        lag_max=0.002,
        plain_seconds=plain,
        plain_cpu_seconds=plain and plain / 2,
    )


def test_derived_figures() -> None:
    one = sample(100, 2.0, cpu=3.0, tasks=8.0)
    assert one.throughput == 50.0
    assert one.latency == 0.02
    assert one.overlap == 4.0
    assert one.cpu == 1.5


def test_conc_compares_with_wave_1_and_x2_with_the_wave_before() -> None:
    run = WaveRun(sizes=(4, 8, 16))
    for tokens, seconds in ((4, 0.4), (8, 0.4), (16, 1.2)):
        run.add(sample(tokens, seconds))
    rows = run.rows()
    assert [row.wave for row in rows] == [1, 2, 3]
    assert [row.conc for row in rows] == pytest.approx([1.0, 2.0, 4 / 3])
    assert rows[0].x2 is None
    assert [row.x2 for row in rows[1:]] == pytest.approx([1.0, 3.0])


def test_x2_is_left_out_where_the_wave_did_not_double() -> None:
    run = WaveRun(sizes=(4, 12, 24))
    for tokens in run.sizes:
        run.add(sample(tokens, 1.0))
    assert [row.x2 for row in run.rows()] == [None, None, 1.0]


def test_a_row_is_the_repeat_of_median_time() -> None:
    repeats = [sample(4, seconds) for seconds in (0.3, 0.1, 0.2)]
    assert middle(repeats).seconds == 0.2
    assert middle(repeats[:2]).seconds == 0.1
    run = WaveRun(sizes=(4,), repeats=3, samples={4: repeats})
    assert [row.sample.seconds for row in run.rows()] == [0.2]


def test_totals_cover_every_repeat() -> None:
    run = WaveRun(sizes=(4, 8), repeats=2)
    for one in (
        sample(4, 1.0, tasks=2.0, cpu=0.5),
        sample(8, 1.0, tasks=1.0, cpu=0.9),
        sample(4, 1.0, tasks=2.0, cpu=0.5, failed=1),
        sample(8, 1.0, tasks=1.0, cpu=0.9, failed=2),
    ):
        run.add(one)
    totals = run.totals()
    assert totals is not None
    assert (totals.tokens, totals.ok, totals.failed) == (24, 21, 3)
    assert totals.seconds == 4.0
    assert totals.latency == pytest.approx(4.0 / 24)
    assert totals.peak_conc == (2.0, 2)
    assert totals.peak_overlap == (2.0, 1)
    assert totals.peak_cpu == (0.9, 2)
    assert run.failures() == {"bad: ValueError: no": 3}
    assert (run.measured, run.planned) == (24, 24)


def test_an_empty_run_has_no_figures() -> None:
    run = WaveRun(sizes=(4, 8))
    assert run.rows() == []
    assert run.totals() is None
    assert run.sweet_spot() is None
    assert run.plain_comparison() is None


def test_a_run_that_was_stopped_has_the_figures_of_what_was_measured() -> None:
    run = WaveRun(sizes=(4, 8, 16), repeats=2)
    run.add(sample(4, 1.0))
    run.add(sample(8, 1.0))
    totals = run.totals()
    sweet = run.sweet_spot()
    assert totals is not None
    assert sweet is not None
    assert (totals.tokens, sweet.tokens, run.planned) == (12, 8, 56)


def test_the_plain_loop_is_compared_over_waves_that_have_both() -> None:
    run = WaveRun(sizes=(4, 8, 16))
    run.add(sample(4, 1.0, cpu=0.75, plain=0.5))
    run.add(sample(8, 2.0, cpu=1.5, plain=1.5))
    run.add(sample(16, 100.0, cpu=100.0))
    comparison = run.plain_comparison()
    assert comparison is not None
    assert (comparison.calls, comparison.token_seconds, comparison.plain_seconds) == (12, 3.0, 2.0)
    assert comparison.ratio == 1.5
    assert (comparison.token_cpu, comparison.plain_cpu) == (0.75, 0.5)
