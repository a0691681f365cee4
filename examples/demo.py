"""Pansharpen the example scene and score the result against the reference image."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from ssdiff_ref.quality.metrics import reduced_resolution_scores
from ssdiff_trt import pansharpen
from ssdiff_trt.runtime.bundle.store import bundle_for
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.progress import choose
from ssdiff_trt.runtime.quicklook import colour_bands, figure, show, stretch

SCENE = Path(__file__).parent / "sentinel2"
FULL_SCALE = 10000  # reflectance 1


def read(path: Path) -> NDArray[np.float64]:
    """All bands of a raster, ``[C, H, W]``."""
    with rasterio.open(path) as image:
        return image.read().astype(np.float64)


def main() -> None:
    """Run the demo: write the fused image and a figure, and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out"), help="directory for the results"
    )
    directory = parser.parse_args().output
    directory.mkdir(parents=True, exist_ok=True)
    bundle = bundle_for(4)
    result = pansharpen(
        SCENE / "pan.tif",
        SCENE / "ms.tif",
        directory / "demo.tif",
        bundle=bundle,
        full_scale=FULL_SCALE,
        overwrite=True,
        progress=choose(),
    )
    pan, ms, truth = (read(SCENE / f"{name}.tif") for name in ("pan", "ms", "truth"))
    images = {"MS, interpolated": interpolate(ms), "SSDiff": read(result.output)}
    scores = {
        name: reduced_resolution_scores(image, truth, FULL_SCALE) for name, image in images.items()
    }

    rgb = colour_bands(bundle.manifest.sensor.bands)
    everywhere = np.ones(truth.shape[1:], bool)
    drawing, panels = figure(4, *truth.shape[1:])
    (grey,) = stretch([pan], everywhere)
    *fused, reference = stretch([image[rgb] for image in (*images.values(), truth)], everywhere)
    titles = [f"{name}, ERGAS {scores[name]['ERGAS']:.2f}" for name in images]
    for panel, image, title in zip(
        panels, (grey, *fused, reference), ("PAN", *titles, "truth"), strict=True
    ):
        show(panel, image, title)
    picture = directory / "demo.png"
    drawing.savefig(picture)

    print(f"\n{'':18}" + "".join(f"{metric:>9}" for metric in scores["SSDiff"]))
    for name, metrics in scores.items():
        print(f"{name:18}" + "".join(f"{value:9.4f}" for value in metrics.values()))
    print(f"\nresult   {result.output.resolve()}\npicture  {picture.resolve()}")


if __name__ == "__main__":
    main()
