"""What sensors simulated samples are drawn for: sharpness and registration."""

from __future__ import annotations

import pytest
import torch

from ssdiff_ref.training import synthesis
from ssdiff_ref.training.config import Simulation
from ssdiff_ref.training.synthesis import Synthesizer, crop_size


@pytest.mark.parametrize("step", [1, 2])
def test_pan_is_mostly_sharp_and_mostly_registered_in_every_direction(step, monkeypatch):
    count, calls, kernels = 900, [], synthesis.kernels

    def record(gain, shift, *sizes):
        calls.append((gain, shift))
        return kernels(gain, shift, *sizes)

    monkeypatch.setattr(synthesis, "kernels", record)
    generator = torch.Generator().manual_seed(4)
    same = Simulation(diffraction=(0, 0))
    synthesizer = Synthesizer(2, generator, torch.device("cpu"), simulation=same)
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


def draw(bands, count, step=2, **options):
    """Samples of one image, ``[bands, ...]`` of random values."""
    generator = torch.Generator().manual_seed(4)
    synthesizer = Synthesizer(bands, generator, torch.device("cpu"), **options)
    size = crop_size(16, step)
    crops = 1 + torch.rand(1, bands, size, size, generator=generator).expand(count, -1, -1, -1)
    return synthesizer.draw(crops, crops.mean((0, 2, 3)), step, spectral=True)


def test_haze_takes_contrast_from_short_wavelengths_most_and_all_of_it_from_flat_samples():
    synthesizer = Synthesizer(4, torch.Generator().manual_seed(4), torch.device("cpu"))
    veil = synthesizer._veil(4000)[..., 0, 0]
    flat = (veil == 1).all(1)
    assert flat.float().mean() == pytest.approx(0.03, abs=0.01)
    veil = veil[~flat]
    assert (veil > 0).any(1).float().mean() == pytest.approx(0.6, abs=0.03)
    assert veil.max() == pytest.approx(0.95)
    means = veil.mean(0)
    assert (means.diff() < 0).all()
    # A strength of 0.45 in the mean of 60 %; at the last band times the mean of exp(-3 u).
    assert means[0] == pytest.approx(0.6 * 0.45 * 0.95, rel=0.05)
    assert means[-1] == pytest.approx(0.6 * 0.45 * 0.95 * 0.3167, rel=0.1)


def test_samples_with_all_their_contrast_taken_are_flat_but_for_their_noise(monkeypatch):
    monkeypatch.setattr(Synthesizer, "_veil", lambda self, count: torch.ones(count, 4, 1, 1))
    batch = draw(4, 100)
    truth = batch.lms + batch.residual
    assert truth.std((2, 3)).max() < 0.006
    assert truth.mean((2, 3)).std() > 0.05


def test_bands_of_an_array_are_displaced_together_and_by_up_to_some_pixels():
    arrays = [[1, 3], [2, 4]]
    generator = torch.Generator().manual_seed(4)
    synthesizer = Synthesizer(4, generator, torch.device("cpu"), arrays=arrays)
    shifts = synthesizer._array_shifts(4000)
    assert torch.equal(shifts[..., 0], shifts[..., 2])
    assert torch.equal(shifts[..., 1], shifts[..., 3])
    first, second = shifts[..., 0], shifts[..., 1]
    assert (first != 0).all(0).float().mean() == pytest.approx(0.6, abs=0.03)
    assert abs(torch.corrcoef(torch.stack((first.flatten(), second.flatten())))[0, 1]) < 0.05
    assert first.abs().max() == pytest.approx(1.5)
    assert first[first != 0].std() == pytest.approx(0.6, rel=0.05)
    without = Synthesizer(4, generator, torch.device("cpu"))
    assert not without._array_shifts(10).any()


def test_ms_has_noise_of_its_own_in_half_of_the_samples(monkeypatch):
    given = []
    observe = synthesis.observe

    def record(truth, gain, position, noise):
        given.append(noise)
        return observe(truth, gain, position, noise)

    monkeypatch.setattr(synthesis, "observe", record)
    batch = draw(4, 400)
    (noise,) = given
    spread = noise.std((1, 2, 3))
    assert (spread > 0).float().mean() == pytest.approx(0.5, abs=0.07)
    assert 0.3 * 0.0003 <= spread[spread > 0].min() < 0.0006
    assert 0.003 < spread.max() <= 0.0065
    assert noise.shape[-2] >= batch.ms.shape[-2] + 8


def test_a_quarter_of_the_samples_has_8_bits_and_the_others_11():
    batch = draw(4, 200)
    truth = batch.lms + batch.residual

    def whole(levels):
        values = truth * levels
        return ((values - values.round()).abs() < 2e-3).flatten(1).all(1)

    assert whole(255).float().mean() == pytest.approx(0.25, abs=0.1)
    assert (whole(255) | whole(2047)).all()


@pytest.mark.parametrize(("step", "softest"), [(1, 0.35), (2, 0.2)])
def test_the_truth_is_of_any_sharpness(step, softest, monkeypatch):
    gains, kernels = [], synthesis.kernels

    def record(gain, *others):
        gains.append(gain)
        return kernels(gain, *others)

    monkeypatch.setattr(synthesis, "kernels", record)
    draw(2, 300, step)
    of_samples = gains[0][:, -1]  # air blurs the others
    assert of_samples.min() == pytest.approx(softest, abs=0.05)
    assert of_samples.max() == pytest.approx(1, abs=0.03)
    assert of_samples.mean() == pytest.approx((1 + softest) / 2, abs=0.04)


def test_short_wavelengths_are_blurred_by_the_air_and_long_ones_by_the_optics(monkeypatch):
    gains, kernels = [], synthesis.kernels

    def record(gain, *others):
        gains.append(gain)
        return kernels(gain, *others)

    monkeypatch.setattr(synthesis, "kernels", record)
    draw(3, 2000, 1, simulation=Simulation(ms_gain=(0.3, 0.3)))
    truth, ms = (gains[index].log() for index in (0, -1))
    # Half of the largest ratio in the mean, half of that at the band between; no gain below 0.12.
    assert (truth[:, 2] - truth[:, 1]).mean() == pytest.approx(0.3, abs=0.03)
    assert (truth[:, 2] - truth[:, 0]).quantile(0.25) == pytest.approx(0.3, abs=0.05)
    assert (truth[:, 2] - truth[:, 0]).quantile(0.5) == pytest.approx(0.6, abs=0.08)
    ratios = ms[:, 0] - ms[:, 2]
    assert ratios.mean() == pytest.approx(0.2, abs=0.02)
    # 0.6 in width, and 0.02 of 0.3 in each of the bands.
    assert ratios.std() == pytest.approx((0.6**2 / 12 + 2 * (0.02 / 0.3) ** 2) ** 0.5, rel=0.1)
    assert ms.mean(1).exp().mean() == pytest.approx(0.3, abs=0.01)


def test_samples_without_haze_keep_their_contrast():
    generator = torch.Generator().manual_seed(4)
    simulation = Simulation(haze=0)
    synthesizer = Synthesizer(4, generator, torch.device("cpu"), simulation=simulation)
    veil = synthesizer._veil(1000)
    assert set(veil.unique().tolist()) == {0, 1}  # 1 where the sample is flat
