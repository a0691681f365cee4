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
from ssdiff_trt.runtime.parity.ladder import Array, real_tiles, real_truth

_PIXELS, _WIDTH = 128 * 128, 256
"""Pixels to judge, and columns of the scene that the tiles are from."""


def judge(bundle: Bundle) -> Judgement:
    """Compare the images of a bundle, by its own sampler and from its FP32 graphs, with the truth.

    The scene is Sentinel-2 at 20 m, with the visible bands and red edge; PAN is their mean and MS
    is blurred by the MTF of WorldView-2. Few weights are trained for that, so the comparison
    separates usable weights from unusable ones, not good from better.
    """
    model = bundle.manifest.model
    count = max(1, min(_PIXELS // model.tile**2, _WIDTH // model.tile))
    tiles = real_tiles(model.bands, model.tile, count)
    truth = real_truth(model.bands, model.tile, count)
    batches = (tiles.part(slice(k, k + 1)) for k in range(count))
    images = list(OnnxRuntime(bundle).sample(batches, bundle.manifest.sampler.schedule()))

    def score(images: Array) -> float:
        as_image = (np.concatenate(list(tiles), axis=1) for tiles in (images, truth))
        return ergas(*as_image)

    image = np.concatenate(images)
    return Judgement(
        ergas=score(image) if np.isfinite(image).all() else float("inf"),
        interpolation=score(tiles.lms),
    )
