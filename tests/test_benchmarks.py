"""Tables of documents from what benchmarks wrote."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import engines, work
from benchmarks.adaptation import table
from benchmarks.uncertainty import Judged, fit, markdown, scores
from benchmarks.weights import full, means, reduced
from ssdiff_trt.runtime.tiles.uncertainty import Parts, combined
from tests.support.figures import report

SCENES = {
    "one": {
        "reduced": {
            "EXP": {"ERGAS": 4.0, "SAM": 3.0, "Q2n": 0.7},
            "GSA": {"ERGAS": 2.0, "SAM": 3.5, "Q2n": 0.9},
            "ssdiff:a": {"ERGAS": 1.5, "SAM": 3.3, "Q2n": 0.95},
            "ssdiff:b": {"ERGAS": 2.5, "SAM": 1.5, "Q2n": 0.85},
        },
        "full": {
            name: {
                "R-ERGAS": value,
                "D_rho": value / 10,
                "detail": 0.9,
                "overshoot": -0.01,
                "period 4": 1.0,
            }
            for name, value in (("GSA", 1.0), ("ssdiff:a", 2.0), ("ssdiff:b", 4.0))
        },
    },
    "two": {
        "reduced": {
            "GSA": {"ERGAS": 1.0, "SAM": 1.0, "Q2n": 0.5},
            "ssdiff:a": {"ERGAS": 1.25, "SAM": 1.0, "Q2n": 0.75},
            "ssdiff:b": {"ERGAS": 0.75, "SAM": 0.5, "Q2n": 0.55},
        },
        "full": {},
    },
}


def test_the_better_of_two_is_bold():
    assert reduced(SCENES, "a")[2:] == [
        "| one | 2.000, **1.500** | **3.000**, 3.300 | .9000, **.9500** |",
        "| two | **1.000**, 1.250 | 1.000, **1.000** | .5000, **.7500** |",
    ]


def test_scenes_without_full_resolution_are_left_out_there():
    assert full(SCENES, "a")[2:] == [
        "| one | GSA | 1.000 | .1000 | .9000 | -.0100 | 1.000 |",
        "|  | a | 2.000 | .2000 | .9000 | -.0100 | 1.000 |",
    ]


def test_means_are_relative_to_the_best_of_each_scene():
    assert means(SCENES)[2:] == [
        "| a | 1.000 | 1.050 | .8500 | 2.000 | .2000 | .9000 |",
        "| b | 1.000 | .5000 | .7000 | 4.000 | .4000 | .9000 |",
    ]


def judged(error, estimate, measured=None):
    """A scene of full scale 100 with such errors and such an uncertainty."""
    measured = measured or Parts(*(estimate / 100,) * 3)
    return Judged(estimate, estimate, error, measured, 100, ("red",) * len(error))


def test_uncertainty_that_ranks_well_and_is_half_of_the_error():
    estimate = np.arange(1.0, 201).reshape(2, 10, 10)
    row = scores(judged(2 * estimate, estimate))
    assert row["rank correlation"] == pytest.approx(1)
    assert row["rank correlation, mean of bands"] == pytest.approx(1)
    assert row["mean error / mean uncertainty"] == pytest.approx(2)
    assert row["shares within"] == {"0.5": 0, "1": 0, "2": 1, "3": 1}
    assert row["tenths"][0] == pytest.approx([0.105, 0.21])
    shown = "| one | yes | 1.00 | 1.00 | 2.00 | 0% | 0% | 100% | 100% |"
    assert shown in markdown({"one": {"fitted": True, **row}})


def test_uncertainty_is_fitted_to_errors_of_known_constants():
    rng = np.random.default_rng(0)
    shape = 1, 200, 200
    measured = Parts(rng.gamma(2, 0.01, shape), rng.gamma(2, 0.003, shape), np.zeros(shape))
    expected = {"floor": 0.002, "detail": 0.5, "unexplained": 2.0}
    error = 100 * combined(measured, **expected) * rng.exponential(size=shape)
    found = fit([judged(error, error, measured)])
    assert found == pytest.approx(expected, rel=0.1)


def test_the_table_of_adaptation_has_the_change_and_what_was_not_written():
    names = ("ERGAS", "SAM", "Q2n", "R-ERGAS", "D_rho", "detail")
    before = dict(zip(names, (2.0, 3.0, 0.9, 0.5, 0.1, 0.85), strict=True))
    scene = {"blocks": 12, "before": before, "after": {**before, "ERGAS": 1.5}, "worse": []}
    lines = table({"one": scene, "two": {**scene, "worse": ["SAM", "detail"]}}).splitlines()
    assert lines[2].startswith("| one | 12 | 2.000 → 1.500 | 3.000 → 3.000 | .9000 → .9000 |")
    assert lines[2].endswith("| .8500 → .8500 | -25.0% |")
    assert lines[3].endswith("| -25.0%; not written: SAM, detail |")


def test_the_table_of_engines_has_a_row_for_each_batch():
    sizes = {"size": 15.2e6, "memory": 282.4e6}
    measured = [
        {"tile": 64, "precision": precision, "batches": batches, **sizes}
        for precision in ("fp16", "fp32")
        for batches in ([1, 8, 32], [4])
    ]
    measured[3] |= {"memory": 1250.6e6}
    assert engines.table(measured).splitlines() == [
        "| batch | fp32, tiles of 64 | fp16, tiles of 64 |",
        "| --- | --- | --- |",
        "| 1 to 32 | 282 / 15 | 282 / 15 |",
        "| 4 | 1251 / 15 | 282 / 15 |",
    ]


def test_the_work_of_a_step_is_counted_as_in_the_report():
    assert work.work("generic4") == report("work")
