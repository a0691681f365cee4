"""The benchmark: what it measures, how it tells it, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

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

QUICK = {"batches": (1, 2), "rounds": 2, "repeats": 2, "seconds": 0}
STEPS = make_schedule((999, 500, 20))


class Paper(StandIn):
    """A backend that costs nothing, which the benchmark can open by name."""

    device, build_seconds = "cpu", 12.5

    def describe(self):
        return "paper"


def open_paper(name, bundle, *, precision, threads, batch, progress):
    return Paper()


def open_nothing(name, bundle, **options):
    raise SSDiffError("It is not there; get it.")


def open_killed(name, bundle, **options):
    os.kill(os.getpid(), 9)


PAPER = {"paper": f"{__name__}:open_paper"}


@pytest.fixture(scope="module")
def found():
    """Of two contenders, neither of which does anything."""
    others = PAPER | {"reference": PAPER["paper"]}
    return bench(backends=(), others=others, steps=(1, 3), **QUICK)


# Numbers


def test_percentiles_are_of_all_runs_and_need_enough_of_them():
    hundred = [range(1, 51), range(51, 101)]
    assert percentile(hundred, 50) == 50.5
    assert percentile(hundred, 95) == pytest.approx(95.05)
    assert percentile(hundred, 99) == pytest.approx(99.01)
    assert percentile([range(99)], 99) is None
    assert percentile([range(19)], 95) is None
    assert percentile([[3.0]], 50) == 3


def test_a_ratio_is_of_medians_and_its_spread_covers_what_is_between_processes():
    same = ratio([[4.0, 4.0], [4.0]], [[2.0], [2.0, 2.0]])
    assert same == (2, 2, 2)
    assert same.certain
    rng = np.random.default_rng(1)
    quiet = [rng.normal(100, 1, 50) for _ in range(4)]
    again = [rng.normal(100, 1, 50) for _ in range(4)]
    assert ratio(again, quiet).value == pytest.approx(1, abs=0.01)
    assert not ratio(again, quiet).certain
    slower = [values * 1.05 for values in again]
    assert ratio(slower, quiet).certain
    assert 1.03 < ratio(slower, quiet).low < 1.05 < ratio(slower, quiet).high < 1.07
    # Runs within a process agree to 1 %, but processes differ by 10 %: 5 % more proves nothing.
    moody = [rng.normal(mood, 1, 50) for mood in (95, 105, 98, 102)]
    assert not ratio(slower, moody).certain
    assert str(ratio([[1.0]], [[3.0]])) == "0.33 (0.33-0.33)"


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (55.12, "55.1"), (0.01234, "0.0123"), (None, "-")]
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def sample_of(latency, tiles, seconds, joules=None):
    seen = None if joules is None else Observed(gauge="paper", joules=joules)
    return Sample(latency_ms=latency, tiles=tiles, seconds=seconds, observed=seen)


def case_of(*samples, contender="paper fp32", batch=4):
    processes = [
        Process(load_seconds=1, first_tile_seconds=2, host_bytes=10**8, samples={2: sample})
        for sample in samples
    ]
    return Case(contender=contender, batch=batch, processes=tuple(processes))


def test_throughput_and_energy_are_of_all_that_streamed():
    case = case_of(sample_of((1,), 100, 2.0, 50.0), sample_of((1,), 300, 2.0, 70.0))
    assert case.rates(2) == [50, 150]
    assert case.tiles_per_second(2) == 100
    assert case.joules_per_tile(2) == pytest.approx(0.3)
    assert case.watts(2) == pytest.approx(30)
    untold = case_of(sample_of((1,), 100, 2.0, 50.0), sample_of((1,), 300, 2.0))
    assert untold.joules_per_tile(2) is untold.watts(2) is None


# Measuring


def test_as_many_runs_as_asked_or_as_long_as_asked():
    backend, some = StandIn(), tiles64(3)
    found = measure(backend, some, STEPS, 7, 0, Watch("cpu"))
    assert len(found.latency_ms) == 7
    assert found.device_ms == ()
    assert found.tiles == 7 * 3
    assert backend.batches == [3] * (1 + 7 + 7)  # one to warm up, of which nothing is told


def test_short_runs_fill_the_time_and_not_the_memory(monkeypatch):
    monkeypatch.setattr(worker, "_MOST", 20)
    backend, some = StandIn(), tiles64(1)
    found = measure(backend, some, STEPS, 1, 0.4, Watch("cpu"))
    assert len(found.latency_ms) == 20
    assert found.seconds >= 0.4
    assert found.tiles > 20
    assert len(measure(backend, some, STEPS, 30, 0.01, Watch("cpu")).latency_ms) == 30


def test_a_gpu_is_timed_by_its_own_clock(make_backend):
    backend, cuda = make_backend(batch=4)
    assert isinstance(backend, TimedByDevice)
    assert not isinstance(StandIn(), TimedByDevice)
    found = measure(backend, engine_tiles(4), STEPS, 5, 0, Watch("gpu"))
    assert found.device_ms == (3.0,) * 5  # the fake GPU takes a millisecond for each step
    assert found.tiles == 5 * 4
    assert len(cuda.graphs) == 2  # one for each slot: nothing is captured while time is taken


def test_what_a_scene_does_itself_is_not_the_networks_time(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    waited = TimedBackend(Paper())
    assert len(list(waited.sample([tiles64(1), tiles64(1)], STEPS))) == 2
    # A tick between any two looks at the clock: 3 calls of 3 ticks each, less 3 for the batches.
    assert waited.seconds == 3 * 3 - 3
    assert (waited.batch, waited.precision, waited.device) == (5, "fp32", "cpu")


def test_every_round_visits_every_case_in_an_order_of_its_own():
    orders = [rounds._shuffled(range(9), turn) for turn in range(4)]
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders[1] == rounds._shuffled(range(9), 1)


def test_cases_are_all_contenders_and_batches(found):
    assert [(case.contender, case.batch) for case in found.cases] == [
        ("paper fp32", 1),
        ("paper fp32", 2),
        ("reference fp32", 1),
        ("reference fp32", 2),
    ]
    for case in found.cases:
        assert len(case.processes) == 2
        for process in case.processes:
            assert set(process.samples) == {1, 3}
            assert process.device_bytes is None
            assert 0 < process.load_seconds < process.first_tile_seconds
            assert 20e6 < process.host_bytes < 400e6  # of that process, not of this one
            for sample in process.samples.values():
                assert len(sample.latency_ms) == 2
                assert sample.tiles == 2 * case.batch


def test_all_of_it_comes_back_from_json(found, tmp_path):
    path = tmp_path / "found.json"
    path.write_text(found.model_dump_json(indent=1))
    assert read_benchmark(path) == found
    content = json.loads(path.read_text())
    assert content["format"] == 1
    assert content["environment"]["packages"]["numpy"] == np.__version__
    assert content["contenders"]["paper fp32"]["build_seconds"] == 12.5


def test_the_real_network_is_measured_and_told(tmp_path, make_pair, capsys):
    pan, ms = make_pair(64, 64)
    words = ["bench", "--batch", "1", "--rounds", "1", "--repeats", "1", "--seconds", "0"]
    words += ["--scene", str(pan), str(ms), "--backend", "onnxruntime", "--steps", "1"]
    words += ["--power-label", "15W mode", "--json", str(tmp_path / "a.json")]
    words += ["--plot", str(tmp_path / "a.png")]
    assert cli.main(words, standalone_mode=False) is None
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    assert "The scene from file to file: 0.0041 Mpixel" in told
    assert "15W mode" in told
    found = read_benchmark(tmp_path / "a.json")
    (case,), (scene,) = found.cases, found.scenes
    (run,) = scene.runs
    assert case.processes[0].samples[1].tiles == 1
    assert 1 < case.latencies(1)[0][0] < 60_000
    assert (run.pixels, run.steps, run.tiles) == (64 * 64, 2, 1)
    assert 0 < run.network_seconds < run.seconds
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.png", "ms.tif", "pan.tif"]


def test_the_reference_is_a_contender(bundle4):
    from ssdiff_ref.network.backend import open_torch
    from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime

    reference = open_torch("reference", bundle4)
    some = worker.real_tiles(4, 64, 2)
    ours = OnnxRuntime(bundle4)
    for one, other in zip(reference.sample([some], STEPS), ours.sample([some], STEPS), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
    residual = ours.denoise(some, some.noise, 500.0)
    np.testing.assert_allclose(
        reference.denoise(some, some.noise, 500.0), residual, rtol=0, atol=2e-5
    )
    assert "eager, fft, materialised attention" in reference.describe()
    assert (reference.device, reference.precision) == ("cpu", "fp32")


# Telling


def test_tables_fit_a_terminal_and_say_what_is_not_known(found, capsys):
    print_tables(found)
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    assert "faster than reference" in told
    assert "p95 takes 20 runs" in told
    assert "energy: not told by this platform" in told
    assert "12.5" in told  # to build the engine


def changed(found, factor=1.0, **update):
    """The same benchmark with all latencies times a factor."""
    content = found.model_dump()
    for case in content["cases"]:
        for process in case["processes"]:
            for sample in process["samples"].values():
                sample["latency_ms"] = tuple(10 * factor for _ in sample["latency_ms"])
    return Benchmark.model_validate(content | {"others_cores": 0.0} | update)


def test_a_comparison_tells_ratios_and_what_differs(found, capsys):
    before, now = changed(found), changed(found, 1.25)
    print_comparison(now, before)
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("1.25 (1.25-1.25) slower") == 8
    assert "Not the same" not in told
    elsewhere = now.environment.model_copy(update={"processor": "Another"})
    print_comparison(changed(found, 0.5, environment=elsewhere.model_dump()), before)
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("0.50 (0.50-0.50) faster") == 8
    assert "Not the same: processor is Another, was " in told
    busy = changed(found, others_cores=0.9 * found.environment.cores)
    print_comparison(busy, before)
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("1.00 (1.00-1.00) no difference seen") == 8
    assert f"Not the same: other programs kept {number(busy.others_cores)} cores busy now" in told
    print_comparison(now, before.model_copy(update={"cases": ()}))
    assert "has none of these" in capsys.readouterr().out


def with_power(found, watts, throttled=()):
    """The same benchmark on a machine that tells of its energy."""
    content = found.model_dump()
    for case in content["cases"]:
        for process in case["processes"]:
            for sample in process["samples"].values():
                sample["observed"] = {
                    "gauge": "paper",
                    "joules": watts * sample["seconds"],
                    "mhz": 1300,
                    "celsius": 71,
                    "throttled": throttled,
                }
    content["settings"]["budget_watts"] = 30.0
    return Benchmark.model_validate(content)


def test_power_beyond_the_budget_and_throttling_are_told(found, capsys):
    print_tables(with_power(found, 31.5, ("heat",)))
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("BEYOND THE BUDGET of 30 W") == 8
    assert "took 31.5 W" in told
    assert "1300 to 1300 MHz; up to 71 degrees C; THROTTLED in 8 of 8 windows: heat" in told
    print_tables(with_power(found, 29.5))
    told = capsys.readouterr().out
    assert "BUDGET" not in told
    assert "THROTTLED" not in told


def test_the_picture_has_a_line_for_each_contender_and_number_of_steps(found, tmp_path):
    draw(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 20_000


# Mistakes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batches": (1, 0)}, "--batch 1,0 does not work; give 1 or more"),
        ({"rounds": 0}, "--rounds 0 does not work"),
        ({"threads": 0}, "--threads 0 does not work"),
        ({"seconds": -1.0}, "--seconds -1 does not work"),
        ({"steps": (0,)}, "0 steps were asked for"),
        ({"bundle": "nothing"}, "nothing is not a bundle"),
        ({"backends": ("nonsense",)}, "nonsense in auto: The backend 'nonsense' is unknown"),
        ({"backends": (), "others": {"x": f"{__name__}:open_nothing"}}, "It is not there; get it"),
        ({"backends": (), "others": {"x": f"{__name__}:open_killed"}}, r"was killed \(signal 9\)"),
        ({"json": "no/where.json"}, "no is not a directory that can be written to"),
        ({"plot": "x.foo"}, "A picture cannot be drawn as x.foo"),
        ({"plot": "x.png", "json": "x.png"}, "--json and --plot are both x.png"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(monkeypatch, tmp_path, options, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(rounds, "_SETTLE", 0.05)
    progress = RecordingProgress()
    with pytest.raises(SSDiffError, match=sentence):
        bench(**QUICK | options, progress=progress)
    assert progress.total == 0
    assert os.listdir(tmp_path) == []


def test_files_are_not_replaced_unasked(tmp_path):
    (tmp_path / "a.json").write_text("mine")
    for option in ("--json", "--plot"):
        done = call("bench", option, tmp_path / "a.json")
        assert done.returncode == 2
        assert f"a.json exists; give another {option} or pass --overwrite" in done.stderr
    assert (tmp_path / "a.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no json", "is not a benchmark of format 1"),
        ('{"format": 2}', "is not a benchmark of format 1 (format: Input should be 1)"),
        (None, "old.json cannot be read (No such file or directory)"),
    ],
)
def test_an_older_benchmark_that_cannot_be_read_is_told_first(tmp_path, content, sentence):
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
def test_words_that_are_no_numbers_are_told(words, sentence):
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
    assert "Interrupted; no unfinished output is left." in rest
    assert "Traceback" not in rest
    assert os.listdir(tmp_path) == ["scratch"]
    # ONNX Runtime itself may leave a file there.
    assert not [entry.name for entry in os.scandir(tmp_path / "scratch") if entry.is_dir()]


def test_without_torch_there_is_no_reference(monkeypatch):
    monkeypatch.setattr(rounds, "find_spec", lambda name: None)
    with pytest.raises(SSDiffError, match="--reference needs PyTorch, which is not installed; pip"):
        bench(reference=True)


def test_what_does_not_work_here_is_left_out_and_told(monkeypatch):
    monkeypatch.setattr(rounds, "_SETTLE", 0.05)
    progress = RecordingProgress()
    others = PAPER | {"missing": f"{__name__}:open_nothing"}
    found = bench(backends=(), others=others, steps=(1,), progress=progress, **QUICK)
    assert {case.contender for case in found.cases} == {"paper fp32"}
    assert "left out is missing in auto: It is not there; get it." in progress.warnings
    assert progress.done == progress.total == 2 * 2


def test_a_machine_with_other_work_gets_a_warning(monkeypatch):
    monkeypatch.setattr(rounds, "_SETTLE", 0.05)
    monkeypatch.setattr(rounds, "others_cores", lambda before, after: 0.7)
    progress = RecordingProgress()
    found = bench(backends=(), others=PAPER, steps=(1,), progress=progress, **QUICK)
    busy = f"other programs kept 0.7 of {found.environment.cores} cores busy"
    told = [warning for warning in progress.warnings if busy in warning]
    assert [warning.split(",")[0] for warning in told] == [
        "Before the start",
        "While it was measured",
    ]
    assert found.others_cores == 0.7
