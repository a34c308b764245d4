from tokengate.wave import report
from tokengate.wave.environment import Environment, observe
from tokengate.wave.record import WaveRun, WaveSample

ENVIRONMENT = Environment(
    tokengate="1.2.3",
    python="CPython 3.11.9",
    gil="with the GIL",
    system="Linux x86_64",
    usable_cpus=2,
    physical_cores=1,
    workers="thread lane, 3 workers",
)


def run_of(
    *seconds: float, failed: int = 0, plain: float | None = None, plain_cpu: float = 1.0
) -> WaveRun:
    run = WaveRun(sizes=tuple(4 << step for step in range(len(seconds))))
    for size, time in zip(run.sizes, seconds, strict=True):
        run.add(
            WaveSample(
                tokens=size,
                ok=size - failed,
                failures={"hash_chain: ValueError: no": failed} if failed else {},
                seconds=time,
                cpu_seconds=time * 0.75,
                task_seconds=time * 3,
                lag_p99=0.0125,
                lag_max=0.02,
                plain_seconds=plain,
                plain_cpu_seconds=plain and plain * plain_cpu,
            )
        )
    return run


def test_the_columns_are_those_of_the_reference_run_and_the_honest_three() -> None:
    assert " ".join(report.header_lines()[0].split()) == (
        "Wave Tokens OK Fail Time Tok/s Lat(ms) Conc Overlap SumTask(ms) CPU Lag99(ms) x2"
    )


def test_a_row_has_every_figure_under_its_name() -> None:
    run = run_of(0.002, 0.003, failed=1)
    cells = report.row_line(run.rows()[1]).split()
    names = report.header_lines()[0].split()
    assert dict(zip(names, cells, strict=True)) == {
        "Wave": "2",
        "Tokens": "8",
        "OK": "7",
        "Fail": "1",
        "Time": "0.0030",
        "Tok/s": "2,667",
        "Lat(ms)": "0.3750",
        "Conc": "1.33",
        "Overlap": "3.00",
        "SumTask(ms)": "9.00",
        "CPU": "0.75",
        "Lag99(ms)": "12.50",
        "x2": "1.50",
    }


def test_every_line_of_a_big_run_is_as_wide_as_its_header() -> None:
    run = run_of(*(0.001 * 2**step for step in range(24)))
    widths = {len(report.row_line(row)) for row in run.rows()}
    assert widths == {len(line) for line in report.header_lines()}


def test_the_first_wave_has_nothing_before_it() -> None:
    assert report.row_line(run_of(0.002).rows()[0]).split()[-1] == "-"


def test_the_summary_gives_totals_peaks_sweet_spot_and_plateau() -> None:
    text = "\n".join(report.summary_lines(run_of(0.004, 0.004, 0.008, 0.032), ENVIRONMENT))
    assert "Tokens 60: 60 ok, 0 failed; total time 0.048 s, average latency 0.8000 ms" in text
    assert "Peak concurrency 2.00x (wave 2), peak overlap 3.00x" in text
    assert "Sweet spot: 8 tokens at 2,000 tok/s (the best throughput of all waves)" in text
    assert "Plateau: from 8 to 16 tokens (the largest wave with 90% of the best)" in text
    assert "plain" not in text


def test_the_summary_says_on_what_it_was_measured_and_what_cpu_and_overlap_mean() -> None:
    lines = report.summary_lines(run_of(0.004), ENVIRONMENT)
    assert (
        "Measured on CPython 3.11.9, with the GIL; Linux x86_64, 2 usable CPUs "
        "(1 physical core); thread lane, 3 workers." in lines
    )
    assert lines[-1] == report.MEANING
    assert "CPU" in report.MEANING
    assert "Overlap" in report.MEANING


def test_failures_are_listed() -> None:
    text = "\n".join(report.summary_lines(run_of(0.004, 0.004, failed=2), ENVIRONMENT))
    assert "8 ok, 4 failed" in text
    assert "  4 x hash_chain: ValueError: no" in text


def test_a_sweet_spot_before_the_best_wave_names_both() -> None:
    text = "\n".join(report.summary_lines(run_of(0.0041, 0.008), ENVIRONMENT))
    assert "Sweet spot: 4 tokens at 976 tok/s (smallest wave within 5% of the best" in text
    assert "1,000 tok/s at 8)" in text


def test_a_dip_and_a_missing_plateau_are_told() -> None:
    dip = "\n".join(report.summary_lines(run_of(0.004, 0.016, 0.016), ENVIRONMENT))
    assert "Plateau: from 4 to 16 tokens" in dip
    assert "below that in between: 8" in dip
    none = "\n".join(report.summary_lines(run_of(0.004, 0.016), ENVIRONMENT))
    assert "Plateau: none" in none


def test_the_plain_loop_is_compared_where_it_was_measured() -> None:
    text = "\n".join(report.summary_lines(run_of(0.006, 0.006, plain=0.005), ENVIRONMENT))
    assert (
        "Plain for loop, same 12 calls: 0.010 s (CPU 1.00); "
        "the waves took 0.012 s (CPU 0.75) = 1.20x the plain loop" in text
    )
    assert "Caution" not in text


def test_a_machine_busy_with_other_programs_is_told() -> None:
    run = run_of(0.006, 0.006, plain=0.005, plain_cpu=0.55)
    text = "\n".join(report.summary_lines(run, ENVIRONMENT))
    assert "Caution: the plain loop got 55% of a core." in text


def test_a_run_stopped_early_says_so() -> None:
    run = run_of(0.004)
    run.sizes = (4, 8, 16)
    run.interrupted = True
    text = "\n".join(report.summary_lines(run, ENVIRONMENT))
    assert "Stopped early: 4 of 28 tokens were measured" in text
    nothing = WaveRun(sizes=(4,), interrupted=True)
    assert "nothing was measured" in "\n".join(report.summary_lines(nothing, ENVIRONMENT))


def test_the_title_counts_repeats() -> None:
    run = WaveRun(sizes=(4, 8), repeats=3)
    assert report.title(run, ("a", "b")) == (
        "TokenGate wave benchmark: 2 waves, each 3 times, 36 tokens; tasks in turn: a, b"
    )


def test_the_environment_of_this_process_is_described() -> None:
    environment = observe("thread lane, 7 workers")
    assert environment.usable_cpus >= 1
    assert "GIL" in environment.gil
    assert environment.describe().endswith("thread lane, 7 workers")
