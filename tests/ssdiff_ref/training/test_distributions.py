"""What sensors simulated samples are drawn for: sharpness and registration."""

from __future__ import annotations

import pytest
import torch

from ssdiff_ref.training import synthesis
from ssdiff_ref.training.synthesis import Synthesizer, crop_size


@pytest.mark.parametrize("step", [1, 2])
def test_pan_is_mostly_sharp_and_mostly_registered_in_every_direction(step, monkeypatch):
    count, calls, kernels = 300, [], synthesis.kernels

    def record(gain, shift, *sizes):
        calls.append((gain, shift))
        return kernels(gain, shift, *sizes)

    monkeypatch.setattr(synthesis, "kernels", record)
    synthesizer = Synthesizer(2, torch.Generator().manual_seed(4), torch.device("cpu"))
    size = crop_size(4, step)
    synthesizer.draw(torch.ones(count, 2, size, size), torch.ones(2), step, spectral=True)
    (gain, down), (_, across), (ms_gain, _), _ = calls[2:]  # after those of the ground truth
    assert 0.15 <= gain.min() < 0.2
    assert 0.65 < gain.max() <= 0.7
    # 15 % are soft, in 0.15 to 0.4, and a fifth of those as sharp as the others may be.
    assert (gain < 0.35).float().mean() == pytest.approx(0.12, abs=0.04)
    centre = (step - 1) / 2 - (step - 1) // 2
    for shift in (down, across):
        away = (shift - centre) / step
        assert away.mean() == pytest.approx(0, abs=0.02)
        assert -0.8 <= away.min() < -0.3
        assert 0.3 < away.max() <= 0.8
        # 15 % by 0.3 pixels, the others by 0.06.
        assert away.std() == pytest.approx((0.15 * 0.3**2 + 0.85 * 0.06**2) ** 0.5, rel=0.2)
    # The bands of MS differ little in sharpness, and samples a lot.
    assert ms_gain.mean() == pytest.approx(0.3, abs=0.02)
    assert ms_gain.std(1).mean() == pytest.approx(0.02 * (2 / torch.pi) ** 0.5, rel=0.2)
    assert ms_gain.mean(1).std() == pytest.approx(0.2 / 12**0.5, rel=0.2)


@pytest.mark.parametrize(("response", "share"), [(None, 0.4), ((0.5, 0.5), 0.1)])
def test_pan_sees_bands_of_the_source_in_some_samples(response, share):
    generator = torch.Generator().manual_seed(4)
    synthesizer = Synthesizer(2, generator, torch.device("cpu"), response)
    weights = synthesizer._pan_weights(2000, 3)[:, 0]
    assert weights.sum(-1).allclose(torch.ones(2000))
    outside = weights[:, 2:].sum(-1)
    assert (outside > 0).float().mean() == pytest.approx(share, abs=0.04)
    assert 0.35 < outside.max() <= 0.4


def test_most_samples_have_the_bands_of_the_source_in_order_and_a_little_contrast():
    synthesizer = Synthesizer(3, torch.Generator().manual_seed(4), torch.device("cpu"))
    own = synthesizer._mixing(2000, 3, spectral=True).diagonal(dim1=1, dim2=2)
    in_order = own[(own > 0.9).all(1)]
    assert len(in_order) / 2000 == pytest.approx(0.8, abs=0.03)
    assert in_order.mean() == pytest.approx(0.972, abs=0.01)
    # 0.3 of -0.15 to 0.15, in each direction alike.
    assert in_order.std() == pytest.approx(0.3 * 0.15 / 3**0.5, rel=0.1)
