"""Which layers a lowered network has, and the largest magnitudes that are measured in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export import parity
from ssdiff_trt.export.graph import network_for_export
from ssdiff_trt.export.parity import FP16_HEADROOM, FP16_MAX, measure_lowering
from ssdiff_trt.export.precision import DTYPES, FP32_MODULES, Lowered, MagnitudeRecorder
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import ParityError


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("form", ["portable", "fused"])
def test_layers_that_engines_lack_or_compute_inexactly_are_replaced(precision, form):
    lowered = Lowered(network_for_export(SSNet(4), form), precision)
    kinds = {type(module) for module in lowered.modules()}
    assert not kinds & {nn.ConvTranspose2d, nn.GroupNorm}
    assert {"ShuffledConvolution", "GroupNorm"} <= {kind.__name__ for kind in kinds}


class Halves(nn.Module):
    """Two layers with known results, and an island in FP32 whose results are larger."""

    def __init__(self):
        super().__init__()
        self.first, self.island = nn.Linear(1, 1, bias=False), nn.LayerNorm(1)
        self.blocks = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
        for layer, weight in ((self.first, -3.0), (self.blocks[0], -0.5)):
            nn.init.constant_(layer.weight, weight)
        nn.init.constant_(self.island.bias, 900.0)
        self.sink = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.sink.weight, 1e-3)

    def forward(self, x):
        x = self.blocks(self.first(x))
        assert nn.functional.softplus(self.island(x)).min() >= 900
        return self.sink(x) * 5 + torch.zeros(0).sum()


def test_the_magnitude_of_every_operation_is_recorded_under_its_module():
    recorder, net = MagnitudeRecorder(), Halves()
    assert type(net.island) in FP32_MODULES
    with torch.no_grad(), recorder.attached(net):
        for value in (2.0, 4.0, -1.0):
            net(torch.full((3, 1), value))
    recorded = dict(recorder.largest)
    assert recorded.pop("network: softplus") == 900  # outside the island
    assert recorded == {
        "first: linear": 12,
        "blocks.0: linear": 6,
        "blocks.1: relu": 6,
        "sink: linear": pytest.approx(6e-3),
        "network: mul": pytest.approx(3e-2),
        "network: zeros": 0,
        "network: sum": 0,
        "network: add": pytest.approx(3e-2),
        "network: min": 900,
    }
    net(torch.full((3, 1), 50.0))  # after the block nothing is recorded
    assert recorder.largest["first: linear"] == 12


@pytest.fixture
def measured(monkeypatch):
    """Measures a lowering whose magnitudes on real and on random tiles are given."""

    def measured(precision, real, random=0.0):
        recorder = MagnitudeRecorder()
        values = {"real": real, "random": random}

        def walk(denoise, tiles, schedule):
            recorder.largest.update(
                {"head.0: conv2d": 7.0, "fusions.1.apfm: matmul": values[tiles]}
            )

        monkeypatch.setattr(parity, "MagnitudeRecorder", lambda: recorder)
        monkeypatch.setattr(parity, "walk", walk)
        monkeypatch.setattr(
            parity, "trajectories", lambda model, sampler: [(n, n, None) for n in values]
        )
        bundle = SimpleNamespace(manifest=open_bundle("generic4").manifest)
        return measure_lowering(SSNet(4), bundle, precision)

    return measured


LIMIT = FP16_MAX / FP16_HEADROOM


@pytest.mark.parametrize(("precision", "real"), [("fp16", LIMIT - 1), ("bf16", 10 * LIMIT)])
def test_the_operation_with_the_largest_magnitude_is_named(measured, precision, real):
    lowering = measured(precision, real, random=LIMIT)
    assert (lowering.precision, lowering.largest) == (precision, real)
    assert lowering.where == "fusions.1.apfm: matmul"
    assert any("FMIM: computes sums" in line for line in lowering.kept)
    assert measured(precision, 6.9).where == "head.0: conv2d"


@pytest.mark.parametrize("real", [LIMIT, float("inf")])
def test_too_little_headroom_for_fp16_is_refused_with_the_operation(measured, real):
    assert LIMIT == 8188
    with pytest.raises(ParityError, match=r"\(fusions.1.apfm: matmul\), expected less than 8188 "):
        measured("fp16", real)
