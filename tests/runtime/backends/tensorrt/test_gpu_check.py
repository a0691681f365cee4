"""The stages of the GPU check that use TensorRT, with fake engines on the stand-in driver."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from benchmarks.gpu import stages
from benchmarks.gpu.report import Graphs, Machine, Outcome, faults, merged, write
from ssdiff_trt.runtime.benchmark.environment import environment as environment_here
from tests.support.engines import step


@pytest.fixture
def check(make_with, monkeypatch):
    """Runs a stage with an engine that computes a function."""

    def check(stage, network=step):
        make = make_with("cuda-python")
        opened = []

        def open_backend(name, bundle, *, batch, **options):
            assert not any(backend._context for backend in opened)
            progress = stages.Recorder()
            opened.append(make(batch=batch, network=network, progress=progress))
            return opened[-1]

        monkeypatch.setattr(stages, "open_backend", open_backend)
        monkeypatch.setattr(stages, "GPU_BACKENDS", ("tensorrt",))
        given = {"bundle": "generic4", "precisions": ("fp32", "fp16"), "batches": (8,)}
        results = getattr(stages.Check(stages.Settings(**given)), stage)(stages.Recorder())
        assert list(results) == ["tensorrt fp32", "tensorrt fp16"]
        assert all(backend._context is None for backend in opened)
        return results["tensorrt fp16"].result

    return check


def test_memory_is_what_it_was_when_the_engine_is_closed(check):
    engine = check("engines")
    assert engine.free_open < engine.free_before == engine.free_closed
    assert "fake_tensorrt 10.14.1" in engine.backend


def test_graph_and_loop_agree_and_nan_stays(check):
    assert check("graphs") == Graphs(captured=True, same_bytes=True, keeps_nan=True)


def test_a_graph_that_gives_other_bytes_is_noticed(check):
    calls = count()

    def drifting(**inputs):
        return step(**inputs) + np.float32(1e-6 * next(calls))

    assert check("graphs", drifting).same_bytes is False


def test_a_nan_that_is_lost_is_noticed(check):
    assert check("graphs", lambda **inputs: np.nan_to_num(step(**inputs))).keeps_nan is False


def test_a_nan_that_spreads_is_noticed(check):
    def spreading(**inputs):
        image = step(**inputs)
        return np.full_like(image, np.nan) if np.isnan(image).any() else image

    assert check("graphs", spreading).keeps_nan is False


def test_a_graph_that_cannot_be_captured_is_noticed(check, driver):
    driver.reset(captures=False)
    found = check("graphs")
    assert (found.captured, found.same_bytes, found.keeps_nan) == (False, None, True)


def test_an_engine_that_fails_is_an_error_and_the_others_are_checked():
    def failing(progress, name, precision):
        if precision == "fp32":
            raise ZeroDivisionError("a defect")
        return precision

    kept = []
    given = {"bundle": "generic4", "precisions": ("fp32",), "batches": (8,)}
    check = stages.Check(stages.Settings(**given), keep=lambda results: kept.append(list(results)))
    found = check._each([("a", "fp32"), ("a", "fp16")], failing)
    assert found["a fp32"].error == "ZeroDivisionError: a defect"
    assert found["a fp16"].result == "fp16"
    assert kept == [["a fp32"], ["a fp32", "a fp16"]]


def test_what_was_found_before_a_crash_stays(monkeypatch, tmp_path):
    """A process that is killed at the second backend."""
    environment = Machine(
        environment=environment_here(), gpu=None, unusable={}, bundle="b", bundle_sha256="0"
    )
    write(tmp_path / "environment.json", Outcome(seconds=1, result=environment))

    def crash(self, progress, name, precision):
        if precision == "fp16":
            raise SystemExit(139)
        return Graphs(captured=None, same_bytes=None, keeps_nan=False)

    monkeypatch.setattr(stages.Check, "_capture", crash)
    given = {"bundle": "generic4", "precisions": ("fp32", "fp16"), "batches": (8,)}
    with pytest.raises(SystemExit):
        stages.run_stage("graphs", tmp_path, stages.Settings(**given))
    graphs = [line for line in faults(merged(tmp_path)) if line.startswith("graphs")]
    assert graphs == [
        "graphs: the process of the stage ended after tensorrt fp32",
        "graphs, tensorrt fp32: a NaN in PAN does not give NaN in the image of its tile alone",
    ]
