"""Tables of documents from what benchmarks wrote."""

from __future__ import annotations

from benchmarks.adaptation import table
from benchmarks.weights import full, means, reduced

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


def test_the_table_of_adaptation_has_the_change_and_what_was_not_written():
    names = ("ERGAS", "SAM", "Q2n", "R-ERGAS", "D_rho", "detail")
    before = dict(zip(names, (2.0, 3.0, 0.9, 0.5, 0.1, 0.85), strict=True))
    scene = {"blocks": 12, "before": before, "after": {**before, "ERGAS": 1.5}, "worse": []}
    lines = table({"one": scene, "two": {**scene, "worse": ["SAM", "detail"]}}).splitlines()
    assert lines[2].startswith("| one | 12 | 2.000 → 1.500 | 3.000 → 3.000 | .9000 → .9000 |")
    assert lines[2].endswith("| .8500 → .8500 | -25.0% |")
    assert lines[3].endswith("| -25.0%; not written: SAM, detail |")
