"""What an export measured: texts and limits."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from ssdiff_trt.runtime.bundle.measured import Budget, Deviation, Judgement, StepParity, Verdict
from ssdiff_trt.runtime.errors import InputError


def verdict(**changes):
    values = {"ergas_fp32": 1.25, "ergas": 1.2625, "sam_fp32": 2.0, "sam": 1.99, "psnr": 51.26}
    return Verdict(tiles=2, **values | changes)


def test_a_verdict_states_scores_their_change_over_fp32_and_the_distance():
    assert str(verdict()) == "ERGAS 1.2625 (+1.00%), SAM 1.9900 (-0.50%), 51.3 dB to FP32"
    assert verdict().ergas_loss == pytest.approx(0.01)
    assert verdict().sam_loss == pytest.approx(-0.005)


ERGAS = "ERGAS is 1.2626 and 1.2500 in FP32, 1.00% is allowed"
SAM = "SAM is 2.0300 and 2.0000 in FP32, 1.00% is allowed"


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"ergas": 1.25 * 1.01, "sam": 2.0 * 1.01, "psnr": 45.0}, []),  # exactly the budget
        ({"ergas": 1.2626}, [ERGAS]),
        ({"sam": 2.03}, [SAM]),
        ({"psnr": 44.94}, ["PSNR to FP32 is 44.9 dB, 45 dB are needed"]),
        (
            {"ergas": 1.2626, "sam": 2.03, "psnr": 4.0},
            [ERGAS, SAM, "PSNR to FP32 is 4.0 dB, 45 dB are needed"],
        ),
        (
            {"ergas": math.nan, "sam": math.nan, "psnr": math.nan},
            [
                "ERGAS is nan and 1.2500 in FP32, 1.00% is allowed",
                "SAM is nan and 2.0000 in FP32, 1.00% is allowed",
                "PSNR to FP32 is nan dB, 45 dB are needed",
            ],
        ),
    ],
)
def test_a_budget_names_every_measure_that_exceeds_it(changes, faults):
    assert list(Budget(loss=0.01).faults(verdict(**changes))) == faults


def test_a_step_without_some_computations_has_the_others():
    values = {name: Deviation(max=k, rmse=k, psnr=k) for k, name in enumerate("abc")}
    step = StepParity(t=999, deviations=values)
    assert step.without({"b"}) == StepParity(t=999, deviations={k: values[k] for k in "ac"})


def test_a_loss_is_between_0_and_1():
    assert Budget.allowing(0.015) == Budget(loss=0.015, psnr=45)
    for loss, words in ((0, "0%"), (1, "100%"), (-0.1, "-10%")):
        with pytest.raises(InputError, match=f"A loss of {words} does not work"):
            Budget.allowing(loss)


@pytest.mark.parametrize(
    ("ergas", "worse"), [(1.5, False), (2.0, True), (2.5, True), (math.nan, True)]
)
def test_a_judgement_compares_with_interpolated_ms(ergas, worse):
    judgement = Judgement(ergas=ergas, interpolation=2.0)
    assert judgement.worse == worse
    assert str(judgement) == f"ERGAS {ergas:.3f}, interpolated MS 2.000"


def test_what_was_measured_is_not_changed_and_has_no_other_fields():
    with pytest.raises(ValidationError, match="frozen"):
        verdict().psnr = 99.0
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        verdict(score=1)
