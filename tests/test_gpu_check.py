"""The GPU check without a GPU: its stages, its report, the folder that carries it, its table."""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.gpu import check, edge, pack, references
from benchmarks.gpu import stages as stages_module
from benchmarks.gpu.report import (
    STAGES,
    Compared,
    Engine,
    Gpu,
    Graphs,
    Machine,
    Outcome,
    References,
    Report,
    faults,
    read_report,
    write,
)
from ssdiff_trt.runtime.benchmark.environment import environment
from ssdiff_trt.runtime.benchmark.results import read_benchmark
from ssdiff_trt.runtime.bundle.measured import (
    Deviation,
    Limits,
    Parity,
    StepParity,
    Trajectory,
)
from ssdiff_trt.runtime.errors import InputError

ROOT = Path(__file__).parent.parent
BENCHMARK = ROOT / "tests/golden/bench-before.json"
GPU = Gpu(name="Orin", sm="sm87", driver=12060, memory_bytes=8 << 30, package="pycuda")
ENGINE = Engine(
    backend="b",
    open_seconds=1,
    build_seconds=None,
    layers={},
    free_before=3,
    free_open=2,
    free_closed=3,
)


def machine(gpu=GPU, board="NVIDIA Jetson Orin Nano Developer Kit"):
    here = environment().model_copy(update={"processor": board})
    bundle = {"bundle": "generic4", "bundle_sha256": "0"}
    return Machine(environment=here, gpu=gpu, unusable={}, **bundle)


class Stages:
    """Stands for the processes of the stages: writes results that pass, and counts them."""

    def __init__(self):
        self.run, self.gpu = [], GPU

    def __call__(self, stage, folder, settings):
        self.run.append(stage)
        result = {
            "environment": machine(self.gpu),
            "references": References(lack="PyTorch is not installed"),
            **dict.fromkeys(("latency", "throughput"), read_benchmark(BENCHMARK)),
        }.get(stage, {})
        write(folder / f"{stage}.json", Outcome(seconds=1, result=result))


@pytest.fixture
def stages(monkeypatch):
    stages = Stages()
    monkeypatch.setattr(check, "run_in_process", stages)
    monkeypatch.setenv("SSDIFF_CACHE", "")
    return stages


def start(folder, *words):
    """Exit status of the command."""
    return check.main.main([*words, "-o", str(folder)], standalone_mode=False)


def test_every_stage_runs_once_and_a_second_start_continues(stages, tmp_path, capsys):
    assert start(tmp_path) == 0
    assert tuple(stages.run) == STAGES
    assert read_report(tmp_path / "report.json").environment.result.gpu == GPU
    (tmp_path / "graphs.json").unlink()
    stages.run.clear()
    capsys.readouterr()
    assert start(tmp_path, "--again", "parity") == 0
    assert stages.run == ["environment", "parity", "graphs"]
    assert "latency: " in (printed := capsys.readouterr().out)
    assert "--again latency runs it once more" in printed


def test_no_stage_begins_when_the_time_is_over(stages, tmp_path, capsys):
    assert start(tmp_path, "--minutes", "0") == 1
    assert stages.run == ["environment"]
    printed = capsys.readouterr().out
    for stage in STAGES[1:]:
        assert f"{stage}: left, as 0 minutes are over; start again to continue" in printed
        assert f"NOT PASSED: {stage}: not begun" in printed
    assert read_report(tmp_path / "report.json").parity is None


def test_results_of_another_gpu_are_not_mixed(stages, tmp_path):
    start(tmp_path)
    stages.gpu = GPU.model_copy(update={"name": "Thor"})
    for _ in range(2):
        with pytest.raises(InputError, match="holds results of the GPU Orin, and this is Thor"):
            start(tmp_path)


def test_a_stage_whose_process_dies_says_so_and_the_others_go_on(tmp_path, monkeypatch):
    stages, in_process = Stages(), check.run_in_process

    def run(stage, folder, settings):
        (in_process if stage == "engines" else stages)(stage, folder, settings)

    monkeypatch.setattr(check, "run_in_process", run)
    monkeypatch.setattr(
        check.subprocess, "run", lambda *words, **options: SimpleNamespace(returncode=-11)
    )
    monkeypatch.setenv("SSDIFF_CACHE", "")
    assert start(tmp_path) == 1
    assert "references" in stages.run
    report = read_report(tmp_path / "report.json")
    assert list(faults(report)) == [
        "engines: the process of the stage was killed (signal 11); what it printed says why"
    ]


@pytest.fixture
def without_rasterio(tmp_path):
    """Environment of a process that has no rasterio, no affine and no GPU."""
    folder = tmp_path / "missing"
    folder.mkdir()
    for name in ("rasterio", "affine"):
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}')\n")
    path = os.pathsep.join([str(folder), str(ROOT)])
    return os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "SSDIFF_CACHE": ""}


def test_without_a_gpu_the_machine_is_described_and_one_sentence_says_so(
    without_rasterio, tmp_path
):
    words = [sys.executable, "-m", "benchmarks.gpu.check", "-o", tmp_path / "results"]
    done = subprocess.run(words, env=without_rasterio, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"Error: There is no GPU to check: [^\n]+; run this on [^\n]+\n", done.stderr
    )
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["environment.json"]
    content = json.loads((tmp_path / "results/environment.json").read_text())
    found = Report.model_validate({"environment": content}).environment.result
    assert found.gpu is None
    assert found.environment.python


def test_the_stages_run_without_rasterio(without_rasterio, tmp_path):
    """On the CPU in place of a GPU."""
    code = (
        "import sys, benchmarks.gpu.stages as stages\n"
        "from pathlib import Path\n"
        "stages.GPU_BACKENDS = ('onnxruntime',)\n"
        "given = {'bundle': 'generic4', 'precisions': ('fp16',), 'batches': (2,)}\n"
        f"for stage in ('environment', 'parity', 'graphs'):\n"
        f"    stages.run_stage(stage, Path({str(tmp_path)!r}), stages.Settings(**given))\n"
        "assert 'torch' not in sys.modules\n"
    )
    words = [sys.executable, "-c", code]
    subprocess.run(words, env=without_rasterio, check=True, capture_output=True, cwd=ROOT)
    report = check.merged(tmp_path)
    compared = report.parity.result["onnxruntime fp16"].result
    assert compared.faults == ()
    last = compared.parity.trajectories[0].steps[-1].deviations["fp16"]
    assert 60 < last.psnr < 120
    assert report.graphs.result["onnxruntime fp16"].result == Graphs(
        captured=None, same_bytes=None, keeps_nan=True
    )


def test_variants_of_the_reference_open(bundle4):
    pytest.importorskip("torch")
    for name in references.EAGER:
        backend = pkgutil.resolve_name(f"{references.__name__}:open_variant")(name, bundle4)
        assert "eager, matmul, fused attention" in backend.describe()
        assert backend.precision == ("fp16" if "half" in name else "fp32")


def test_pytorch_without_a_gpu_is_not_measured(bundle4):
    found = references.measure_references(bundle4, (8,), attempt=None)
    assert found.lack.startswith("PyTorch ")
    assert found.eager is found.compiled is found.floors is None


def test_both_measurements_are_asked_of_the_benchmark_as_it_is(monkeypatch, bundle4):
    signature, asked = inspect.signature(stages_module.bench), []
    monkeypatch.setattr(stages_module, "print_tables", asked.append)
    monkeypatch.setattr(
        stages_module, "bench", lambda *given, **named: signature.bind(*given, **named).arguments
    )
    report = Report(
        environment=outcome(machine().model_copy(update={"unusable": {"tensorrt-rtx": "x"}})),
        engines=outcome({"tensorrt fp16": outcome(ENGINE), "tensorrt bf16": outcome(error="x")}),
    )
    given = {"bundle": "generic4", "precisions": ("fp16", "bf16"), "batches": (8, 128)}
    check = stages_module.Check(stages_module.Settings(**given), report)
    latency, throughput = (
        getattr(check, stage)(stages_module.Recorder()) for stage in ("latency", "throughput")
    )
    assert (latency["batches"], latency["steps"]) == ((1,), (1, 10))
    assert (throughput["batches"], throughput["steps"]) == ((8, 128), (1,))
    assert (latency["backends"], latency["precisions"]) == (("tensorrt",), ("fp16",))
    assert asked == [latency, throughput]


def outcome(result=None, error=None, **more):
    return Outcome(seconds=1, result=result, error=error, **more)


def compared(*wrong):
    deviation = Deviation(max=float("nan"), rmse=float("nan"), psnr=float("inf"))
    step = StepParity(t=5, deviations={"fp16": deviation})
    trajectories = (Trajectory(inputs="real", steps=(step,)),)
    parity = Parity(precision="fp16", limits=Limits(), reference="r", trajectories=trajectories)
    return Compared(backend="b", parity=parity, faults=wrong)


def test_a_report_says_what_is_missing_failed_or_wrong(tmp_path):
    graphs = Graphs(captured=False, same_bytes=False, keeps_nan=False)
    report = Report(
        environment=outcome(machine()),
        engines=outcome({"a": outcome(error="no kernel")}),
        parity=outcome({"a": outcome(compared("gives NaN")), "b": outcome(compared())}),
        graphs=outcome({"a": outcome(graphs)}),
        latency=outcome(error="no memory"),
        references=outcome(References(eager=outcome(error="no weights"))),
    )
    write(tmp_path / "report.json", report)
    read = read_report(tmp_path / "report.json")
    assert list(faults(read)) == [
        "engines, a: no kernel",
        "parity, a: gives NaN",
        "graphs, a: no CUDA graph could be captured",
        "graphs, a: the CUDA graph and the loop give different bytes",
        "graphs, a: a NaN in PAN does not give NaN in the image of its tile alone",
        "latency: no memory",
        "throughput: not begun",
        "references, eager: no weights",
    ]
    (step,) = read.parity.result["a"].result.parity.trajectories[0].steps
    assert str(step.deviations["fp16"]) == "max=nan rmse=nan psnr=inf"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 1}', '{"format": 1, "environment": {"seconds": "x"}}']
)
def test_a_file_that_is_no_report_is_one_sentence(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json is not a report of the GPU check \(.*\); give"):
        read_report(tmp_path / "x.json")


# The table


def test_the_page_on_edge_gpus_has_the_table_of_the_reports():
    assert "\n".join(edge.table(edge.committed())) in (ROOT / "docs/edge.md").read_text()


def test_a_report_gives_a_row_for_each_backend():
    benchmark = read_benchmark(BENCHMARK)
    benchmark = benchmark.model_copy(
        update={"settings": benchmark.settings.model_copy(update={"steps": (1, 10)})}
    )
    speed = {"latency": outcome(benchmark), "throughput": outcome(benchmark)}
    orin = Report(environment=outcome(machine()), **speed)
    other = Report(environment=outcome(machine(board="Some board")), **speed)
    lines = edge.table([other, orin])
    assert len([line for line in lines if "none yet" in line]) == len(edge.DEVICES) - 1
    names = [line.split(" | ")[0] for line in lines]
    candidates = len(benchmark.cases)
    assert names.count("| Jetson Orin Nano") == names.count("| Some board, Orin") == candidates
    case = benchmark.cases[0]
    row = next(line for line in lines if line.startswith(f"| Jetson Orin Nano | {case.candidate}"))
    assert f" | {edge.number(edge.percentile(case.latencies(1), 50))} | " in row


# The folder


def test_what_the_check_needs_has_the_ranges_of_the_project():
    listed = (ROOT / "benchmarks/gpu/requirements.txt").read_text().splitlines()[1:]
    project = (ROOT / "pyproject.toml").read_text()
    assert len(listed) == 6
    for requirement in listed:
        assert f'"{requirement}"' in project


def test_a_folder_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "MOST", 3_000_000)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/small.whl").write_bytes(bytes(1_000_000))
    assert pack.check_size(tmp_path) == 1_000_000
    (tmp_path / "wheels/large.whl").write_bytes(bytes(2_500_000))
    with pytest.raises(InputError, match="has 4 MB, expected at most 3 MB; carry fewer"):
        pack.check_size(tmp_path)


@pytest.mark.parametrize(
    ("wheel", "left_out"),
    [
        ("numpy-2.4.6-cp311-none-any.whl", True),
        ("torch-2.13.0-cp311-none-any.whl", True),
        ("tensorrt_cu12_libs-10.3.0-py2.py3-none-any.whl", True),
        ("nvidia_cublas-13.0-py3-none-any.whl", True),
        ("nvidia_ml_py-13.6-py3-none-any.whl", False),
        ("onnxruntime-1.32.0-cp311-none-any.whl", False),
    ],
)
def test_packages_of_the_machine_are_never_carried(wheel, left_out):
    assert bool(pack.OF_THE_MACHINE.match(wheel)) is left_out


@pytest.mark.slow
def test_the_folder_runs_without_a_network(tmp_path):
    folder = tmp_path / "gpu-pack"
    pack.main.main(["-o", str(folder), "--with", "six"], standalone_mode=False)
    assert pack.check_size(folder) < pack.MOST
    machine = tmp_path / "machine"
    subprocess.run([sys.executable, "-m", "venv", machine], check=True)
    subprocess.run([machine / "bin/pip", "install", "--quiet", "numpy"], check=True)
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    variables = os.environ | nowhere | {"PYTHON": str(machine / "bin/python")}
    variables |= {"PIP_CONFIG_FILE": os.devnull, "CUDA_VISIBLE_DEVICES": ""}
    words = ["sh", folder / "check.sh"]
    for _ in range(2):
        done = subprocess.run(words, env=variables, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith("Error: There is no GPU to check: ")
    assert [path.name for path in (folder / "results").iterdir()] == ["environment.json"]
    assert "six\n" in (folder / "benchmarks/gpu/requirements.txt").read_text()
    code = "import numpy; print(numpy.__file__)"
    words_there = [folder / "build/gpu-check/bin/python", "-c", code]
    done = subprocess.run(words_there, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(machine))
    (folder / "wheels/for").write_text("2.7 vax\n")
    done = subprocess.run(words, env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert ", expected Python 2.7 vax; name one with PYTHON, or pack again" in done.stderr
