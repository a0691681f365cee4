"""What weights make of a real scene, beside interpolation that needs no weights.

Parity shows that the graphs compute what the network computes, and nothing about the weights: an
untrained network passes it.
"""

from __future__ import annotations

import numpy as np

from ssdiff_ref.quality.metrics import ergas
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.bundle.measured import Judgement
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION
from ssdiff_trt.runtime.parity.ladder import Array, real_tiles, real_truth
from ssdiff_trt.runtime.sensors import optics_of
from ssdiff_trt.runtime.tiles.backprojection import back_project

_PIXELS = 128 * 128
"""Pixels to judge."""


def judge(bundle: Bundle) -> Judgement:
    """Compare the images of a bundle, as it makes them by default in FP32, with the truth.

    The scene is Sentinel-2 at 20 m, with the visible bands and red edge; PAN is their mean and MS
    is blurred by the MTF of WorldView-2. Few weights are trained for that, so the comparison
    separates usable weights from unusable ones, not good from better.
    """
    model, sampler = bundle.manifest.model, bundle.manifest.sampler
    count = max(1, _PIXELS // model.tile**2)
    tiles = real_tiles(model.bands, model.tile, count)
    truth = real_truth(model.bands, model.tile, count)
    batches = (tiles.part(slice(k, k + 1)) for k in range(count))
    images = list(OnnxRuntime(bundle).sample(batches, sampler.schedule()))
    at = PROTOCOL_POSITION, PROTOCOL_POSITION
    gains = optics_of(bundle.manifest.sensor.name, model.bands).mtf_ms

    def score(images: Array) -> float:
        as_image = (np.concatenate(list(tiles), axis=1) for tiles in (images, truth))
        return ergas(*as_image)

    corrected = [
        back_project(image, ms, at, gains, sampler.back_projection)
        for image, ms in zip(np.concatenate(images), tiles.ms, strict=True)
    ]
    image = np.stack(corrected)
    return Judgement(
        ergas=score(image) if np.isfinite(image).all() else float("inf"),
        interpolation=score(tiles.lms),
    )
