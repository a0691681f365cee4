"""Inputs and measures of the parity check, without an export."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.bundle.measured import Deviation, Limits
from ssdiff_trt.runtime.parity import verification
from ssdiff_trt.runtime.parity.ladder import deviation, random_tiles, trajectories
from ssdiff_trt.runtime.parity.verification import verify
from ssdiff_trt.runtime.schedule import make_schedule


def test_a_deviation_has_the_largest_and_the_mean_difference_and_decibels():
    expected = np.zeros((1, 4, 8, 8), np.float32)
    actual = expected.copy()
    actual[..., :4] = -0.5
    found = deviation(actual, expected)
    assert (found.max, found.rmse, found.psnr) == pytest.approx((0.5, 0.125**0.5, 9.0309))
    assert deviation(expected, expected) == Deviation(max=0, rmse=0, psnr=200)


def test_int8_is_compared_on_real_tiles_at_its_timesteps_alone(bundle4):
    manifest = bundle4.manifest
    ((kind, tiles, schedule),) = trajectories(manifest.model, manifest.sampler, "int8")
    assert (kind, tiles.pan.shape) == ("real", (1, 1, 32, 32))
    assert schedule.timesteps == manifest.sampler.timesteps
    both = list(trajectories(manifest.model, manifest.sampler))
    assert [(kind, tiles.lms.shape) for kind, tiles, _ in both] == [
        ("random", (1, 4, 32, 32)),
        ("real", (1, 4, 32, 32)),
    ]
    assert all(set(manifest.sampler.timesteps) < set(s.timesteps) for _, _, s in both)


def with_rounding(bundle, largest):
    """The manifest of a bundle whose reference rounds by this much at most."""
    content = bundle.manifest.model_dump()
    content["parity"] = content["parity"][:1]
    for trajectory in content["parity"][0]["trajectories"]:
        for step in trajectory["steps"]:
            step["rounding"] = {"max": largest / 2, "rmse": 0.0, "psnr": 200.0}
    step["rounding"]["max"] = largest
    return type(bundle.manifest).model_validate(content)


@pytest.mark.parametrize(("rounding", "allowed"), [(1e-7, 2e-5), (1e-5, 1.6e-4)])
def test_fp32_is_allowed_twice_what_an_export_allows_for_rounding(bundle4, rounding, allowed):
    limits = verification._limits(with_rounding(bundle4, rounding), "fp32")
    assert limits == Limits(max=limits.max)
    assert limits.max == pytest.approx(allowed)


def test_a_verification_has_the_limits_of_its_precision(bundle4, monkeypatch):
    schedule = make_schedule([999], "consistent")
    only = [("random", random_tiles(4, 32), schedule)]
    monkeypatch.setattr(verification, "trajectories", lambda *_: only)
    monkeypatch.setattr(
        verification, "OnnxRuntime", lambda bundle, **_: Described(bundle, form="contrib")
    )
    done = verify("generic4", "onnxruntime", "fp32")
    assert done.parity.limits == verification._limits(bundle4.manifest, "fp32")
    assert done.passed
    assert [[step.t for step in one.steps] for one in done.parity.trajectories] == [[999]]


class Described(OnnxRuntime):
    """A reference of another name."""

    def describe(self):
        return "the reference"
