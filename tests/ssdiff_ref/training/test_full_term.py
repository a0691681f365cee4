"""The loss of adaptation at full resolution: its samples, its terms, and how they are weighted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.training import full_term
from ssdiff_ref.training.full_term import FullTerm, Weights
from ssdiff_ref.training.synthesis import Batch
from ssdiff_trt.runtime.bundle.store import bundle_for
from tests.support.adaptation import SENSOR, scene_of, split_of


@pytest.fixture(scope="module", autouse=True)
def small_pool():
    """Few samples, as the network processes each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_term, "_POOL", 24)
        yield


def term_of(scene, weights: Weights, trained=None, net=None) -> FullTerm:
    generator = Generator().manual_seed(0)
    bundle = bundle_for(4)
    net = net or load_checkpoint(bundle.path).net.eval()
    masks = split_of(scene).trained([scene]) if trained is None else trained
    schedule = bundle.manifest.sampler.schedule()
    device = torch.device("cpu")
    return FullTerm([scene], masks, SENSOR, net, schedule, 0.5, generator, 32, 4, weights, device)


@pytest.fixture(scope="module")
def term() -> FullTerm:
    """Of a scene whose held-out blocks would show."""
    scene = scene_of()
    for block in (*split_of(scene).validation, *split_of(scene).test):
        scene.ms[(slice(None), *block.place)] = 90
        rows, cols = (slice(4 * part.start, 4 * part.stop) for part in block.place)
        scene.pan[rows, cols] = 90
    return term_of(scene, Weights(0, 0, 0, 1))


def test_samples_at_full_resolution_exclude_held_out_blocks(term):
    assert float(term.pool.ms.max()) < 50
    assert float(term.pool.pan.max()) < 50


def test_the_anchor_is_least_for_the_images_of_the_former_weights(term):
    same = float(term(lambda batch: batch.lms + batch.residual))
    brighter = float(term(lambda batch: batch.lms + batch.residual + 0.05))
    assert same < 1e-3
    assert brighter > 20 * same


def test_at_full_resolution_ms_is_interpolated_to_where_it_lies():
    scene = scene_of(position=(0.5, 2.25))
    yy, xx = np.mgrid[:128, :128]
    scene.ms[:] = (0.2 + 0.002 * yy + 0.001 * xx)[None]
    far_from_edges = np.zeros((128, 128), bool)
    far_from_edges[20:-20, 20:-20] = True
    term = term_of(scene, Weights(1, 0, 0, 0), trained=[far_from_edges])
    lms, ms = term.pool.lms, term.pool.ms
    for step, axis in ((0.002, 2), (0.001, 3)):
        assert float((lms.diff(dim=axis) - step / 4).abs().max()) < 1e-5
    # The centre of the first pixel of MS lies that far from the first pixel of PAN.
    first = ms[:, :, 0, 0] - (0.002 * 0.5 + 0.001 * 2.25) / 4
    assert float((lms[:, :, 0, 0] - first).abs().max()) < 1e-5
    assert set(map(tuple, term.pool.position.tolist())) == {(0.5, 2.25)}


@pytest.mark.parametrize("which", ["consistency", "decorrelation", "detail"])
def test_each_term_prefers_what_it_is_for(which):
    scene = scene_of(64)
    weights = Weights(**{name: float(name == which) for name in vars(Weights())})
    term = term_of(scene, weights, trained=[scene.valid])

    def loss(predict) -> float:
        return float(torch.stack([term(predict) for _ in range(8)]).mean())

    def detailed(batch):
        """PAN's detail on the interpolated MS."""
        blurred = torch.nn.functional.avg_pool2d(batch.pan, 5, 1, 2, count_include_pad=False)
        return batch.lms + batch.pan - blurred

    brighter = loss(lambda batch: 1.2 * batch.lms)
    soft = loss(lambda batch: batch.lms)
    sharp = loss(detailed)
    assert (soft < brighter) if which == "consistency" else (sharp < 0.6 * soft)


def test_a_term_weighs_more_the_longer_it_is_worse_than_before_and_less_again_when_better():
    scene = scene_of(64)
    term = term_of(scene, Weights(0, 1, 0, 0), trained=[scene.valid])
    term.pool = Batch(*(layer[:1] for layer in term.pool))  # always the same sample

    def soft(batch):
        return batch.lms

    def sharp(batch):
        return batch.pan.expand_as(batch.lms)

    losses = [float(term(soft)) for _ in range(5)]
    growth = [losses[n + 1] / losses[n] for n in range(4)]
    assert growth == pytest.approx([math.exp(0.02)] * 4)
    assert [float(term(sharp)) for _ in range(200)] == [0] * 200
    assert float(term(soft)) == pytest.approx(losses[0] / 10)


def test_a_term_asks_for_more_while_its_measure_is_worse_on_held_out_blocks():
    scene = scene_of(64)
    term = term_of(scene, Weights(0, 1, 0, 0), trained=[scene.valid])
    term.pool = Batch(*(layer[:1] for layer in term.pool))

    def former(batch):
        return batch.lms + batch.residual

    first = float(term(former))  # asks for a hundredth less
    term.adjust(("R-ERGAS", "D_rho"))
    assert float(term(former)) == pytest.approx(4 * first * math.exp(0.01), rel=1e-3)
    term.adjust(("detail",))
    assert float(term(former)) == pytest.approx(first * math.exp(0.03), rel=1e-3)
    term.adjust(())
    assert float(term(former)) == 0
