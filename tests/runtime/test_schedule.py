"""The sampler's table."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import alphas_cumprod, make_schedule, sample, spaced_timesteps
from tests.support.golden import golden_arrays


@pytest.mark.parametrize("bands", [4, 8])
def test_alphas_and_timesteps_are_the_released_ones(bands):
    golden = golden_arrays(bands)
    steps = golden["timestep_map"]
    assert spaced_timesteps(len(steps)) == tuple(reversed(steps.tolist()))
    np.testing.assert_allclose(alphas_cumprod()[steps], golden["alphas_cumprod"], rtol=1e-12)


def test_numbers_of_steps_that_no_stride_gives_are_spread_evenly():
    assert spaced_timesteps(3) == (668, 334, 0)  # stride 334
    steps = spaced_timesteps(41)  # no stride has 41 members
    assert len(steps) == 41
    assert set(np.diff(steps)) == {-24, -25}
    assert spaced_timesteps(1) == (999,)


def test_every_number_of_steps_has_the_timesteps_of_the_ddim_rule():
    """The first stride for which ``range(0, 1000, stride)`` has N members, as ddimN says it."""
    by_stride = {}
    for stride in range(1, 1001):
        by_stride.setdefault(len(range(0, 1000, stride)), list(range(0, 1000, stride)))
    assert by_stride.keys() >= {38, 112, 334, 1000}
    for steps in range(2, 1001):
        spread = [math.floor(Fraction(1000 * k, steps)) for k in range(steps)]
        expected = by_stride.get(steps, spread)
        assert spaced_timesteps(steps) == tuple(expected[::-1])


@pytest.mark.parametrize("steps", [1, 2, 10, 999])
def test_the_last_step_gives_the_prediction_itself(steps):
    last = make_schedule(spaced_timesteps(steps)).steps[-1]
    assert last.c0 == 1
    assert last.c1 == 0


def test_perfect_predictions_keep_a_noised_residual_on_its_path():
    """Were x0 known, the state after each step would be sqrt(a') x0 + sqrt(1 - a') noise."""
    rng = np.random.default_rng(0)
    lms, noise = rng.uniform(0.3, 0.7, 100), rng.standard_normal(100)
    x0 = rng.uniform(-0.2, 0.2, 100)
    schedule = make_schedule([900, 500, 100])
    a = alphas_cumprod()[[900, 500, 100]]
    states = []
    image = sample(
        lambda x, t: x0,
        lms,
        np.sqrt(a[0]) * x0 + np.sqrt(1 - a[0]) * noise,
        schedule,
        lambda x, image: states.append(x),
    )
    for state, alpha in zip(states, [a[1], a[2], 1], strict=True):
        np.testing.assert_allclose(state, np.sqrt(alpha) * x0 + np.sqrt(1 - alpha) * noise)
    np.testing.assert_allclose(image, lms + x0)


def test_order_of_timesteps_does_not_matter_and_the_samplers_say_different_things():
    consistent, released = (make_schedule([0, 700, 300], s) for s in ("consistent", "released"))
    assert consistent.timesteps == released.timesteps == (700, 300, 0)
    assert [step.t for step in consistent.steps] == [700, 300, 0]
    assert [step.t for step in released.steps] == [2, 1, 0]


@pytest.mark.parametrize("timesteps", [[], [1000], [-1], [5, 5]])
def test_what_is_no_schedule_is_refused(timesteps):
    with pytest.raises(SSDiffError, match="not a schedule; give at least one, each once"):
        make_schedule(timesteps)


def test_impossible_numbers_of_steps_and_samplers_are_refused():
    with pytest.raises(SSDiffError, match="0 steps were asked for; give 1 to 1000"):
        spaced_timesteps(0)
    with pytest.raises(SSDiffError, match="choose consistent or released"):
        make_schedule([1], "euler")
