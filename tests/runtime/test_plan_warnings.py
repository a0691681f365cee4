"""What a plan warns of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.plan.plan import _uncalibrated


@pytest.mark.parametrize(
    ("precision", "calibrated", "timesteps", "warned"),
    [
        ("int8", (999, 68), (999, 68), False),
        ("int8", (999, 68), (999,), False),
        ("int8", (999, 68), (999, 20), True),
        ("fp32", (999, 68), (999, 20), False),  # of a bundle that has both
        ("fp16", None, (999, 20), False),
    ],
)
def test_int8_at_timesteps_without_calibration_is_warned_of(
    precision, calibrated, timesteps, warned
):
    quantisation = calibrated and SimpleNamespace(timesteps=calibrated)
    manifest = SimpleNamespace(quantisation=quantisation)
    plan = SimpleNamespace(
        precision=precision,
        bundle=SimpleNamespace(manifest=manifest),
        schedule=SimpleNamespace(timesteps=timesteps),
    )
    texts = list(_uncalibrated(plan))
    assert len(texts) == warned
    assert all(text.startswith("int8 is calibrated for t = 999, 68 and") for text in texts)
