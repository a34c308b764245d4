import json
from dataclasses import asdict
from pathlib import Path

from tokengate.wave.environment import observe
from tokengate.wave.export import write_json
from tokengate.wave.record import WaveRun, WaveSample

SLOW = WaveSample(
    tokens=4,
    ok=3,
    failures={"a: ValueError: no": 1},
    seconds=0.5,
    cpu_seconds=0.25,
    task_seconds=1.0,
    lag_p99=0.001,
    lag_max=0.002,
    plain_seconds=0.25,
    plain_cpu_seconds=0.125,
)
FAST = WaveSample(
    tokens=4,
    ok=4,
    failures={},
    seconds=0.25,
    cpu_seconds=0.25,
    task_seconds=1.0,
    lag_p99=0.001,
    lag_max=0.002,
    plain_seconds=0.25,
    plain_cpu_seconds=0.125,
)


def test_everything_measured_and_derived_is_written(tmp_path: Path) -> None:
    run = WaveRun(sizes=(4, 8), repeats=2, samples={4: [SLOW, FAST]}, interrupted=True)
    environment = observe("thread lane, 2 workers")
    path = tmp_path / "wave.json"
    write_json(path, run, ("a", "b"), environment)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["format"] == 1
    assert data["environment"] == asdict(environment)
    assert (data["tasks"], data["sizes"], data["repeats"]) == (["a", "b"], [4, 8], 2)
    assert data["interrupted"] is True
    (wave,) = data["waves"]
    assert (wave["wave"], wave["tokens"], wave["conc"], wave["x2"]) == (1, 4, 1.0, None)
    assert (wave["seconds"], wave["throughput"], wave["overlap"]) == (0.25, 16.0, 4.0)
    assert [repeat["seconds"] for repeat in wave["repeats"]] == [0.5, 0.25]
    assert [repeat["failed"] for repeat in wave["repeats"]] == [1, 0]
    assert wave["repeats"][0]["failures"] == {"a: ValueError: no": 1}
    assert (data["totals"]["tokens"], data["totals"]["failed"]) == (8, 1)
    assert data["sweet_spot"]["tokens"] == 4
    assert data["plain_loop"]["ratio"] == 1.5
    assert data["plain_loop"]["plain_cpu"] == 0.5


def test_a_run_without_a_wave_is_written_too(tmp_path: Path) -> None:
    path = tmp_path / "wave.json"
    write_json(path, WaveRun(sizes=(4,), interrupted=True), ("a",), observe("thread lane"))
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["waves"] == []
    assert data["totals"] is data["sweet_spot"] is data["plain_loop"] is None
