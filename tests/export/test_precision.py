"""How much FP16 and BF16 change fused images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.quality.metrics import ergas, sam
from ssdiff_trt import pansharpen
from ssdiff_trt.export.graph import network_for_export
from ssdiff_trt.export.precision import Lowered
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.parity.ladder import deviation
from ssdiff_trt.runtime.schedule import make_schedule, sample
from ssdiff_trt.runtime.tiles.batch import Tiles
from tests.support.rasters import read_raster

SCENE = Path(__file__).parents[2] / "examples" / "sentinel2"
FULL_SCALE = 10000


def sample_with_torch(net, tiles, schedule):
    noise, pan, lms, ms = (torch.from_numpy(array) for array in tiles)

    def denoise(x, t):
        return net(x, pan, lms, ms, torch.full((len(x),), t))

    with torch.inference_mode():
        return sample(denoise, lms, noise, schedule).numpy()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_ergas_hardly_changes_on_a_real_scene(precision):
    """Four tiles of the example scene, after one step and after three, in PyTorch."""
    pan, ms, truth = (
        read_raster(SCENE / f"{name}.tif").astype(np.float32) / FULL_SCALE
        for name in ("pan", "ms", "truth")
    )
    lms = interpolate(ms)
    corners = [(0, 0), (0, 64), (128, 0), (128, 128)]

    def cut(image, size):
        return np.stack(
            [image[:, r * size // 64 :, c * size // 64 :][:, :size, :size] for r, c in corners]
        )

    noise = np.random.default_rng(0).standard_normal((4, 4, 64, 64), np.float32)
    tiles = Tiles(noise, cut(pan, 64), cut(lms, 64), cut(ms, 16))
    truth_tiles = cut(truth, 64).transpose(1, 0, 2, 3).reshape(4, -1, 64)
    net = network_for_export(load_checkpoint("generic4").net, "fused")
    for timesteps in ((999,), (999, 100, 20)):
        full, low = (
            sample_with_torch(Lowered(net, p), tiles, make_schedule(timesteps))
            for p in ("fp32", precision)
        )
        assert deviation(low, full).psnr > 60
        flat = [image.transpose(1, 0, 2, 3).reshape(4, -1, 64) for image in (full, low)]
        change = ergas(flat[1], truth_tiles) / ergas(flat[0], truth_tiles) - 1
        assert 0 < abs(change) < 0.002
        assert abs(sam(flat[1], truth_tiles) / sam(flat[0], truth_tiles) - 1) < 0.002


@pytest.mark.filterwarnings("ignore:fp16 is slower")
def test_a_whole_run_in_half_precision(low4, tmp_path):
    """The whole example scene, in ONNX Runtime."""
    truth = read_raster(SCENE / "truth.tif") / FULL_SCALE
    images, scores = {}, {}
    for precision in ("fp32", "fp16"):
        result = pansharpen(
            SCENE / "pan.tif",
            SCENE / "ms.tif",
            tmp_path / f"{precision}.tif",
            bundle=low4,
            precision=precision,
            tile_overlap=0,
            full_scale=FULL_SCALE,
            dtype="float32",
        )
        assert result.counts.redone == 0
        assert f", {precision}, " in result.backend
        images[precision] = read_raster(result.output) / FULL_SCALE
        scores[precision] = np.array([f(images[precision], truth) for f in (ergas, sam)])
    assert deviation(images["fp16"], images["fp32"]).psnr > 60
    assert (images["fp16"] != images["fp32"]).any()
    assert (abs(scores["fp16"] / scores["fp32"] - 1) < 0.002).all()
