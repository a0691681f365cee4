"""The benchmark: measurements, tables, file format and errors."""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.backends.protocol import TimedByDevice
from ssdiff_trt.runtime.benchmark import rounds, worker
from ssdiff_trt.runtime.benchmark.gauges import Watch
from ssdiff_trt.runtime.benchmark.plot import draw
from ssdiff_trt.runtime.benchmark.results import (
    Benchmark,
    Case,
    Observed,
    Process,
    Sample,
    read_benchmark,
)
from ssdiff_trt.runtime.benchmark.rounds import bench
from ssdiff_trt.runtime.benchmark.statistics import percentile, ratio
from ssdiff_trt.runtime.benchmark.tables import number, print_comparison, print_tables
from ssdiff_trt.runtime.benchmark.worker import TimedBackend, measure
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import make_schedule
from tests.support.backends import StandIn, tiles64
from tests.support.commands import call
from tests.support.engines import engine_tiles
from tests.support.progress import RecordingProgress

BENCH_BEFORE = Path(__file__).parents[3] / "tests" / "golden" / "bench-before.json"
QUICK = {"batches": (1, 2), "rounds": 2, "repeats": 2, "seconds": 0}
STEPS = make_schedule((999, 500, 20))


class Fake(StandIn):
    """A backend without a network that the benchmark can open by its path."""

    device, build_seconds = "cpu", 12.5

    def describe(self):
        return "fake backend"


def open_fake(name, bundle, *, precision, threads, batch, device, trust_engines, progress):
    return Fake()


def open_nothing(name, bundle, **options):
    raise SSDiffError("It is not there; get it.")


def open_killed(name, bundle, **options):
    os.kill(os.getpid(), 9)


FAKE = {"fake": f"{__name__}:open_fake"}


@pytest.fixture(scope="module")
def benchmark():
    """Benchmark of two candidates that both use the fake backend."""
    options = {"openers": FAKE, "reference": FAKE["fake"], "steps": (1, 3)}
    return bench(backends=(), progress=RecordingProgress(), **options, **QUICK)


# Statistics


def test_percentiles_are_of_all_runs_and_need_enough_of_them():
    hundred = [range(1, 51), range(51, 101)]
    assert percentile(hundred, 50) == 50.5
    assert percentile(hundred, 95) == pytest.approx(95.05)
    assert percentile(hundred, 99) == pytest.approx(99.01)
    assert percentile([range(99)], 99) is None
    assert percentile([range(19)], 95) is None
    assert percentile([[3.0]], 50) == 3


def test_a_ratio_is_of_medians_and_its_interval_covers_variation_between_processes():
    constant = ratio([[4.0, 4.0], [4.0]], [[2.0], [2.0, 2.0]])
    assert constant == (2, 2, 2)
    assert constant.significant
    rng = np.random.default_rng(1)
    quiet = [rng.normal(100, 1, 50) for _ in range(4)]
    again = [rng.normal(100, 1, 50) for _ in range(4)]
    assert ratio(again, quiet).value == pytest.approx(1, abs=0.01)
    assert not ratio(again, quiet).significant
    slower = [values * 1.05 for values in again]
    assert ratio(slower, quiet).significant
    assert 1.03 < ratio(slower, quiet).low < 1.05 < ratio(slower, quiet).high < 1.07
    # Runs within a process agree to 1 %, but processes differ by 10 %: 5 % is not significant.
    varying = [rng.normal(mean, 1, 50) for mean in (95, 105, 98, 102)]
    assert not ratio(slower, varying).significant
    assert str(ratio([[1.0]], [[3.0]])) == "0.33 (0.33-0.33)"


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (55.12, "55.1"), (0.01234, "0.0123"), (None, "-")]
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def sample_of(latency, tiles, seconds, joules=None):
    observed = None if joules is None else Observed(gauge="fake", joules=joules)
    return Sample(latency_ms=latency, tiles=tiles, seconds=seconds, observed=observed)


def case_of(*samples, candidate="fake fp32", batch=4):
    processes = [
        Process(load_seconds=1, first_tile_seconds=2, host_bytes=10**8, samples={2: sample})
        for sample in samples
    ]
    return Case(candidate=candidate, batch=batch, processes=tuple(processes))


def test_throughput_and_energy_are_totals_over_all_rounds():
    case = case_of(sample_of((1,), 100, 2.0, 50.0), sample_of((1,), 300, 2.0, 70.0))
    assert case.rates(2) == [50, 150]
    assert case.tiles_per_second(2) == 100
    assert case.joules_per_tile(2) == pytest.approx(0.3)
    assert case.watts(2) == pytest.approx(30)
    incomplete = case_of(sample_of((1,), 100, 2.0, 50.0), sample_of((1,), 300, 2.0))
    assert incomplete.joules_per_tile(2) is incomplete.watts(2) is None


# Measuring


def test_measurements_reach_the_minimum_of_runs_and_of_time():
    backend, tiles = StandIn(), tiles64(3)
    sample = measure(backend, tiles, STEPS, 7, 0, Watch("cpu"))
    assert len(sample.latency_ms) == 7
    assert sample.device_ms == ()
    assert sample.tiles == 7 * 3
    assert backend.batches == [3] * (1 + 7 + 7)  # the first is a warm-up, which is not recorded


def test_the_number_of_recorded_latencies_is_limited(monkeypatch):
    monkeypatch.setattr(worker, "_MAX_RUNS", 20)
    backend, tiles = StandIn(), tiles64(1)
    sample = measure(backend, tiles, STEPS, 1, 0.4, Watch("cpu"))
    assert len(sample.latency_ms) == 20
    assert sample.seconds >= 0.4
    assert sample.tiles > 20
    assert len(measure(backend, tiles, STEPS, 30, 0.01, Watch("cpu")).latency_ms) == 30


def test_a_gpu_is_timed_by_its_events(make_backend, driver):
    backend = make_backend(batch=4)
    assert isinstance(backend, TimedByDevice)
    assert not isinstance(StandIn(), TimedByDevice)
    sample = measure(backend, engine_tiles(4), STEPS, 5, 0, Watch("gpu"))
    assert sample.device_ms == (3.0,) * 5  # the stand-in takes a millisecond for each step
    assert sample.tiles == 5 * 4
    assert driver.counts.executables == 2  # one for each slot: no capture during the measurement


def test_network_time_excludes_the_preparation_of_batches(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    timed = TimedBackend(Fake())
    assert len(list(timed.sample([tiles64(1), tiles64(1)], STEPS))) == 2
    # The clock advances by 1 at each reading: 3 calls of 3 each, less 3 for the batches.
    assert timed.seconds == 3 * 3 - 3
    assert (timed.batch, timed.precision, timed.device) == (5, "fp32", "cpu")


def test_every_round_measures_every_case_in_its_own_order():
    orders = [rounds._shuffled(range(9), seed) for seed in range(4)]
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders[1] == rounds._shuffled(range(9), 1)


def test_cases_are_all_candidates_and_batches(benchmark):
    assert [(case.candidate, case.batch) for case in benchmark.cases] == [
        ("reference fp32", 1),
        ("reference fp32", 2),
        ("fake fp32", 1),
        ("fake fp32", 2),
    ]
    for case in benchmark.cases:
        assert len(case.processes) == 2
        for process in case.processes:
            assert set(process.samples) == {1, 3}
            assert process.device_bytes is None
            assert 0 < process.load_seconds < process.first_tile_seconds
            assert 20e6 < process.host_bytes < 400e6  # of that process, not of the test process
            for sample in process.samples.values():
                assert len(sample.latency_ms) == 2
                assert sample.tiles == 2 * case.batch


def test_a_benchmark_survives_the_round_trip_through_json(benchmark, tmp_path):
    path = tmp_path / "benchmark.json"
    path.write_text(benchmark.model_dump_json(indent=1))
    assert read_benchmark(path) == benchmark
    content = json.loads(path.read_text())
    assert content["format"] == 2
    assert content["environment"]["packages"]["numpy"] == np.__version__
    assert content["candidates"]["fake fp32"]["build_seconds"] == 12.5


def test_benchmarks_of_format_1_are_read():
    content = json.loads(BENCH_BEFORE.read_text())
    assert content["format"] == 1
    older = read_benchmark(BENCH_BEFORE)
    assert older.format == 2
    assert list(older.candidates) == list(content["contenders"])
    assert [case.candidate for case in older.cases] == [c["contender"] for c in content["cases"]]
    assert [case.candidate for case in older.scenes] == [c["contender"] for c in content["scenes"]]
    process = content["cases"][0]["processes"][0]
    assert older.cases[0].processes[0].host_bytes == process["host_bytes"]


def test_the_network_is_measured_and_printed(tmp_path, make_pair, capsys):
    pan, ms = make_pair(64, 64)
    words = ["bench", "--batch", "1", "--rounds", "1", "--repeats", "1", "--seconds", "0"]
    words += ["--scene", str(pan), str(ms), "--backend", "onnxruntime", "--steps", "1"]
    words += ["--power-label", "15W mode", "--json", str(tmp_path / "a.json")]
    words += ["--plot", str(tmp_path / "a.png")]
    assert cli.main(words, standalone_mode=False) is None
    printed = capsys.readouterr().out
    assert "Scene from file to file: 0.0041 Mpixel" in printed
    assert "15W mode" in printed
    benchmark = read_benchmark(tmp_path / "a.json")
    (case,), (scene,) = benchmark.cases, benchmark.scenes
    (run,) = scene.runs
    assert case.processes[0].samples[1].tiles == 1
    assert 1 < case.latencies(1)[0][0] < 60_000
    assert (run.pixels, run.steps, run.tiles) == (64 * 64, 1, 9)
    assert 0 < run.network_seconds < run.seconds
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.png", "ms.tif", "pan.tif"]


def test_the_reference_can_be_a_candidate(bundle4):
    from ssdiff_ref.network.backend import open_torch
    from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime

    reference = open_torch("reference", bundle4)
    tiles = worker.real_tiles(4, 32, 2)
    session = OnnxRuntime(bundle4)
    (expected,) = reference.sample([tiles], STEPS)
    (actual,) = session.sample([tiles], STEPS)
    np.testing.assert_allclose(expected, actual, rtol=0, atol=2e-5)
    residual = session.denoise(tiles, tiles.noise, 500.0)
    np.testing.assert_allclose(
        reference.denoise(tiles, tiles.noise, 500.0), residual, rtol=0, atol=2e-5
    )
    assert "eager, fft, materialised attention" in reference.describe()
    assert (reference.device, reference.precision) == ("cpu", "fp32")


# Tables


def test_tables_fit_a_terminal_and_name_what_is_not_available(benchmark, become_terminal, capsys):
    become_terminal()
    print_tables(benchmark)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "speed-up vs reference" in printed
    assert "p95 needs 20 runs" in printed
    assert "energy: not available here" in printed
    assert "12.5" in printed  # time to build the engine


def changed(benchmark, factor=1.0, **update):
    """The same benchmark with all latencies set to 10 ms times a factor."""
    content = benchmark.model_dump()
    for case in content["cases"]:
        for process in case["processes"]:
            for sample in process["samples"].values():
                sample["latency_ms"] = tuple(10 * factor for _ in sample["latency_ms"])
    return Benchmark.model_validate(content | {"others_cores": 0.0} | update)


def test_a_comparison_shows_ratios_and_what_differs(benchmark, capsys):
    before, now = changed(benchmark), changed(benchmark, 1.25)
    print_comparison(now, before)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("1.25 (1.25-1.25) slower") == 8
    assert "Differs" not in printed
    # Both have the reference, so the drift of the machine is known.
    assert "measured at different times" in printed
    assert "took 1.25 (1.25-1.25) at batch 1" in printed
    assert "times as long as before: that is the machine or its packages" in printed
    alone = before.model_copy(
        update={"cases": tuple(c for c in before.cases if "reference" not in c.candidate)}
    )
    print_comparison(now, alone)
    printed = " ".join(capsys.readouterr().out.split())
    assert "With --reference in both benchmarks its change would show" in printed
    elsewhere = now.environment.model_copy(update={"processor": "Another"})
    print_comparison(changed(benchmark, 0.5, environment=elsewhere.model_dump()), before)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("0.50 (0.50-0.50) faster") == 8
    assert "Differs: processor is Another, was " in printed
    busy = changed(benchmark, others_cores=0.9 * benchmark.environment.cores)
    print_comparison(busy, before)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("1.00 (1.00-1.00) not significant") == 8
    assert f"Differs: other programs used {number(busy.others_cores)} cores, was 0" in printed
    print_comparison(now, before.model_copy(update={"cases": ()}))
    assert "has none of these" in capsys.readouterr().out


def with_power(benchmark, watts, throttled=()):
    """The same benchmark on a machine that reports energy, clock rate and temperature."""
    content = benchmark.model_dump()
    for case in content["cases"]:
        for process in case["processes"]:
            for sample in process["samples"].values():
                sample["observed"] = {
                    "gauge": "fake",
                    "joules": watts * sample["seconds"],
                    "mhz": 1300,
                    "celsius": 71,
                    "throttled": throttled,
                }
    content["settings"]["budget_watts"] = 30.0
    return Benchmark.model_validate(content)


def test_power_over_the_budget_and_throttling_are_reported(benchmark, capsys):
    print_tables(with_power(benchmark, 31.5, ("heat",)))
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("OVER THE BUDGET of 30 W") == 8
    assert "used 31.5 W" in printed
    assert "1300 to 1300 MHz; up to 71 degrees C; THROTTLED in 8 of 8 measurements: heat" in printed
    print_tables(with_power(benchmark, 29.5))
    printed = capsys.readouterr().out
    assert "BUDGET" not in printed
    assert "THROTTLED" not in printed


def test_the_plot_is_drawn(benchmark, tmp_path):
    draw(benchmark, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 20_000


# Errors


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batches": (1, 0)}, "`batch` is 1,0, expected 1 or more"),
        ({"rounds": 0}, "`rounds` is 0, expected 1 or more"),
        ({"threads": 0}, "`threads` is 0, expected 1 or more"),
        ({"seconds": -1.0}, "`seconds` is -1, expected 0 to less than 3600"),
        ({"steps": (0,)}, "0 steps were asked for"),
        ({"bundle": "nothing"}, "nothing is not a bundle"),
        ({"backends": ("nonsense",)}, "nonsense in auto: The backend 'nonsense' is unknown"),
        ({"backends": (), "openers": {"x": f"{__name__}:open_nothing"}}, "It is not there; get it"),
        ({"backends": (), "openers": {"x": f"{__name__}:open_killed"}}, r"was killed \(signal 9\)"),
        ({"json": f"{__file__}/where.json"}, "is not a directory that can be written to"),
        ({"plot": "x.foo"}, "A picture cannot be drawn as x.foo"),
        ({"plot": "x.png", "json": "x.png"}, "`json` and `plot` are both x.png"),
    ],
)
def test_errors_are_raised_before_anything_is_measured(monkeypatch, tmp_path, options, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(rounds, "_IDLE_CHECK", 0.05)
    progress = RecordingProgress()
    with pytest.raises(SSDiffError, match=sentence):
        bench(**QUICK | options, progress=progress)
    assert progress.total == 0
    assert os.listdir(tmp_path) == []


def test_existing_files_are_not_replaced_without_overwrite(tmp_path):
    (tmp_path / "a.json").write_text("mine")
    for option in ("--json", "--plot"):
        done = call("bench", option, tmp_path / "a.json")
        assert done.returncode == 2
        assert f"a.json exists; give another {option} or pass --overwrite" in done.stderr
    assert (tmp_path / "a.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no json", "is not a benchmark of format 1 or 2 (Expecting value"),
        ('{"format": 3}', "is not a benchmark of format 1 or 2 (format: Input should be 2)"),
        ('{"format": 1, "cases": [1]}', "is not a benchmark of format 1 or 2 (created: Field req"),
        (None, "old.json cannot be read (No such file or directory)"),
    ],
)
def test_an_older_benchmark_that_cannot_be_read_is_an_error_before_measuring(
    tmp_path, content, sentence
):
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    done = call("bench", "--compare", path)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--batch", "1,x"], "'1,x' is not a list of whole numbers"),
        (["--budget", "much"], "'much' is not a power; write it like 30W."),
    ],
)
def test_invalid_numbers_are_rejected(words, sentence):
    done = call("bench", *words)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())


def test_an_interruption_leaves_nothing_and_no_traceback(tmp_path):
    words = ["bench", "--batch", "1", "--steps", "1", "--rounds", "9", "--seconds", "0"]
    words += ["--json", "a.json"]
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-c", "from ssdiff_trt.cli.trt import main; main()", *words]
    places = {"TMPDIR": str(tmp_path / "scratch"), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | places
    ) as process:
        for line in process.stderr:
            if line.startswith("Processes:"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "Interrupted; what was not complete was not written." in rest
    assert "Traceback" not in rest
    assert os.listdir(tmp_path) == ["scratch"]
    # ONNX Runtime itself may leave a file there.
    assert not [entry.name for entry in os.scandir(tmp_path / "scratch") if entry.is_dir()]


def test_the_reference_needs_torch(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(click.UsageError, match="--reference needs PyTorch, which is not"):
        cli.main(["bench", "--reference"], standalone_mode=False)


def test_the_command_measures_the_reference_by_a_path_that_resolves(monkeypatch):
    options = {}
    monkeypatch.setattr(rounds, "bench", lambda bundle, **passed: options.update(passed))
    cli.main(["bench", "--reference", "-q"], standalone_mode=False)
    assert callable(pkgutil.resolve_name(options["reference"]))
    cli.main(["bench", "-q"], standalone_mode=False)
    assert options["reference"] is None


def test_candidates_that_do_not_work_are_left_out_with_a_warning(monkeypatch):
    monkeypatch.setattr(rounds, "_IDLE_CHECK", 0.05)
    progress = RecordingProgress()
    openers = FAKE | {"missing": f"{__name__}:open_nothing"}
    benchmark = bench(backends=(), openers=openers, steps=(1,), progress=progress, **QUICK)
    assert {case.candidate for case in benchmark.cases} == {"fake fp32"}
    assert "left out: missing in auto: It is not there; get it." in progress.warnings
    assert progress.done == progress.total == 2 * 2


def test_a_machine_with_other_programs_gets_a_warning(monkeypatch):
    monkeypatch.setattr(rounds, "_IDLE_CHECK", 0.05)
    monkeypatch.setattr(rounds, "cores_used_by_others", lambda before, after: 0.7)
    progress = RecordingProgress()
    benchmark = bench(backends=(), openers=FAKE, steps=(1,), progress=progress, **QUICK)
    busy = f"other programs used 0.7 of {benchmark.environment.cores} cores"
    warnings = [warning for warning in progress.warnings if busy in warning]
    assert [warning.split(",")[0] for warning in warnings] == [
        "Before the benchmark",
        "During the benchmark",
    ]
    assert benchmark.others_cores == 0.7
