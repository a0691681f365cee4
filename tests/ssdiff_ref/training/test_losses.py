"""Terms of the training loss: what they are in a run, and what they lead to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.full_resolution import d_rho, detail_correlation
from ssdiff_ref.training import full_term
from ssdiff_ref.training.config import Config
from ssdiff_ref.training.losses import (
    back_project,
    detail_decorrelation,
    local_decorrelation,
    seen,
)
from ssdiff_ref.training.pairs import of_protocol
from ssdiff_ref.training.synthesis import Batch
from ssdiff_ref.training.trainer import Trainer
from ssdiff_trt.runtime import consistency
from ssdiff_trt.runtime.consistency import seen_pixels
from ssdiff_trt.runtime.sensors import SENSORS
from ssdiff_trt.runtime.sources import MSAxis
from ssdiff_trt.runtime.tiles import backprojection

POSITIONS = torch.tensor([[2.0, 2.0], [1.5, 1.5], [1.25, 2.0]])


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_back_projection_in_training_is_that_of_a_run(share):
    generator = torch.Generator().manual_seed(0)
    images = 0.25 + 0.5 * torch.rand(3, 4, 32, 32, generator=generator)
    ms = 0.4 + 0.2 * torch.rand(3, 4, 8, 8, generator=generator)
    ours = back_project(images, ms, POSITIONS, share).numpy()
    for image, coarse, position, result in zip(images, ms, POSITIONS, ours, strict=True):
        at = (float(position[0]), float(position[1]))
        arrays = image.numpy(), coarse.numpy()
        expected = backprojection.back_project(*arrays, at, (0.3,) * 4, share)
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_local_decorrelation_is_d_rho_where_there_is_contrast():
    generator = torch.Generator().manual_seed(0)
    pan = torch.rand(1, 1, 64, 64, generator=generator)
    image = 0.5 * pan + 0.5 * torch.rand(1, 4, 64, 64, generator=generator)
    expected = d_rho(image[0].double().numpy(), pan[0, 0].double().numpy())
    assert float(local_decorrelation(image, pan)) == pytest.approx(expected, abs=2e-3)


def test_noise_without_contrast_does_not_count():
    generator = torch.Generator().manual_seed(0)
    flat = 0.5 + 1e-5 * torch.rand(1, 1, 32, 32, generator=generator)
    image = (0.5 + 1e-5 * torch.rand(1, 4, 32, 32, generator=generator)).requires_grad_()
    loss = local_decorrelation(image, flat)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1, abs=1e-3)
    assert image.grad is not None
    # Against a PAN of that noise alone, it would be about 20.
    assert float(image.grad.abs().max()) < 1e-2


def test_low_contrast_counts_as_much_as_the_noise_that_is_stated_allows():
    """Of a scene in a tenth of full scale; adaptation would soften it otherwise."""
    generator = torch.Generator().manual_seed(0)
    pan = 0.01 * torch.rand(1, 1, 64, 64, generator=generator)
    image = 0.5 * pan + 0.005 * torch.rand(1, 4, 64, 64, generator=generator)
    expected = d_rho(image[0].double().numpy(), pan[0, 0].double().numpy())
    counted = float(local_decorrelation(image, pan, full_term.NOISE * 0.01))
    assert counted == pytest.approx(expected, abs=0.05)
    assert float(local_decorrelation(image, pan)) > expected + 0.3


def test_what_the_sensor_sees_in_training_is_that_of_the_consistency_of_a_run():
    image = torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    gains = (0.2, 0.35)
    ours = seen(image, torch.tensor([[1.25, 2.0]]), gains)
    axes = MSAxis(1.25 - 1.5), MSAxis(2.0 - 1.5)
    for band, gain, low in zip(image[0].numpy(), gains, ours[0].numpy(), strict=True):
        rows, cols = (seen_pixels(axis, 64) for axis in axes)
        inner = low[rows.start : rows.stop, cols.start : cols.stop]
        np.testing.assert_allclose(inner, consistency.seen(band, axes, gain), atol=1e-6)


def test_detail_decorrelation_is_one_minus_the_detail_correlation():
    generator = torch.Generator().manual_seed(0)
    pan = torch.rand(1, 1, 128, 128, generator=generator)
    image = 0.5 * pan + 0.5 * torch.rand(1, 4, 128, 128, generator=generator)
    arrays = (layer[0].double().numpy() for layer in (image, pan))
    fused, panchromatic = arrays
    expected = 1 - detail_correlation(fused, panchromatic[0], SENSORS["generic"])
    assert float(detail_decorrelation(image, pan, POSITIONS[:1])) == pytest.approx(
        expected, abs=0.02
    )
    assert float(detail_decorrelation(pan.expand(1, 4, 128, 128), pan, POSITIONS[:1])) < 0.01


class Same:
    """Gives one batch."""

    def draw(self, patch, count):
        generator = torch.Generator().manual_seed(0)
        pan = torch.rand(count, 1, patch, patch, generator=generator)
        lms = torch.full((count, 4, patch, patch), 0.5)
        ms = torch.full((count, 4, patch // 4, patch // 4), 0.5)
        return Batch(pan, lms, ms, torch.zeros_like(lms), of_protocol(count))


def trainer(folder, **settings):
    given = {"bands": 4, "stages": [{"iterations": 1, "patch": 16, "batch": 64}], **settings}
    config = Config.model_validate(given)
    generator, device = torch.Generator(), torch.device("cpu")
    torch.manual_seed(0)
    return Trainer(config, SSNet(4), Same(), None, generator, device, folder)


@pytest.mark.parametrize(("share", "at_999"), [(0, 0), (0.75, 48), (1, 64)])
def test_the_first_timestep_is_drawn_as_often_as_stated(tmp_path, share, at_999):
    subject = trainer(tmp_path, first_timestep=share)
    seen = []
    subject.net.forward = lambda x, pan, lms, ms, t: (seen.append(t), 0 * x)[1]
    subject._random.manual_seed(1)
    subject._loss(Same().draw(16, 64))
    assert float((seen[0] == 999).sum()) == pytest.approx(at_999, abs=8)


@pytest.mark.parametrize("weight", [0, 0.25])
def test_the_weight_of_the_correlation_with_pan_is_the_one_stated(tmp_path, weight):
    """An image that is right and flat has no error and no correlation."""
    subject = trainer(tmp_path, pan_correlation=weight)
    subject.net.forward = lambda x, pan, lms, ms, t: 0 * x
    assert float(subject._loss(Same().draw(16, 4))) == pytest.approx(weight, abs=1e-3)


def test_half_of_the_error_is_that_before_back_projection(tmp_path):
    """A constant error that back-projection takes away."""
    subject = trainer(tmp_path, back_projection=1, relative=False)
    subject.net.forward = lambda x, pan, lms, ms, t: 0 * x + 0.1
    assert float(subject._loss(Same().draw(16, 4))) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize(("error", "expected"), [("absolute", 0.1), ("rms", 0.2)])
def test_the_error_is_of_the_kind_stated(tmp_path, error, expected):
    """An error of 0.4 in a quarter of each patch."""
    subject = trainer(tmp_path, error=error, relative=False)
    wrong = torch.zeros(1, 1, 16, 16)
    wrong[..., ::2, ::2] = 0.4
    subject.net.forward = lambda x, pan, lms, ms, t: 0 * x + wrong
    assert float(subject._loss(Same().draw(16, 4))) == pytest.approx(expected, abs=1e-4)


def test_an_error_of_nothing_has_a_gradient(tmp_path):
    subject = trainer(tmp_path, error="rms")
    bias = torch.zeros(1, requires_grad=True)
    subject.net.forward = lambda x, pan, lms, ms, t: 0 * x + bias
    subject._loss(Same().draw(16, 4)).backward()
    assert torch.isfinite(bias.grad).all()


def test_a_term_adds_to_the_loss_and_predicts_images_of_its_own_batch(tmp_path):
    """The image of the batch is 0.5 + 0.1."""
    subject = trainer(tmp_path, relative=False)
    subject.net.forward = lambda x, pan, lms, ms, t: 0 * x + 0.1
    without = float(subject._loss(Same().draw(16, 4)))
    subject._term = lambda predict: 3 * predict(Same().draw(16, 2)).mean()
    assert float(subject._loss(Same().draw(16, 4))) == pytest.approx(without + 1.8, abs=1e-4)
