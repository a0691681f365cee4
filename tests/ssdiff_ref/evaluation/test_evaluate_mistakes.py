"""Error messages of ``ssdiff-ref evaluate`` on unusable input."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from scipy.io import savemat

from ssdiff_ref.evaluation.evaluate import evaluate
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.raster.affine import product
from tests.support.imagery import GRID, pair, write_pair, write_raster
from tests.support.progress import RecordingProgress


def mat(**arrays):
    def write(folder):
        savemat(folder / "s.mat", arrays)
        return [folder / "s.mat"]

    return write


def h5(**arrays):
    def write(folder):
        with h5py.File(folder / "s.h5", "w") as file:
            for key, array in arrays.items():
                file[key] = array
        return [folder / "s.h5"]

    return write


def rasters(pan=(320, 320), bands=4, ms=(80, 80)):
    def write(folder):
        return write_pair(folder, np.ones(pan, "uint16"), np.ones((bands, *ms), "uint16"))

    return write


ONES = np.ones
SQUARE = {"I_MS": ONES((80, 80, 4)), "I_PAN": ONES((320, 320))}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda _: [], {}, "The inputs are none, expected PAN and MS, or one .h5 or .mat file"),
        (lambda _: ["a.tif"], {}, "The inputs are a.tif, expected PAN and MS"),
        (lambda _: ["a.h5", "b.h5"], {}, "The inputs are a.h5, b.h5, expected"),
        (lambda _: ["none.h5"], {}, "none.h5 is not a file; check the path"),
        (lambda _: ["a.tif", "b.tif"], {}, "PAN image cannot be read"),
        (mat(**SQUARE), {"nodata": 0}, "`nodata` has no effect with .*s.mat; leave it out"),
        (mat(**SQUARE), {"pan_band": 1}, "`pan_band` has no effect with"),
        (mat(**SQUARE), {"methods": ["GSX"]}, "method 'GSX' is unknown, expected one of EXP"),
        (mat(**SQUARE), {"bundles": ["nowhere"]}, "nowhere is not a bundle"),
        (
            mat(**SQUARE),
            {"sensor": "wv3", "bands": (1, 2, 3)},
            "has 3 bands, expected the 8 of WorldView-3",
        ),
        (mat(**SQUARE), {"bands": [1, 2, 3, 5]}, "s.mat has no band 5; it has 4"),
        (mat(**SQUARE), {"sensor": "generic", "bands": [2]}, "has 1 band, expected 2 or more"),
        (mat(**SQUARE), {"full_scale": 0}, "A full scale of 0 does not work"),
        (mat(**SQUARE), {"crop": -1}, "The crop is -1, expected 0 or more"),
        (mat(**SQUARE), {"crop": 30}, r"80 x 80 pixels, expected 91 x 91 .* pass `crop=24` or"),
        (mat(**SQUARE), {"picture": "p.docx"}, "cannot be drawn as p.docx, expected a name"),
        (
            mat(**SQUARE),
            {"json": f"{__file__}/where.json"},
            "is not a directory that can be",
        ),
        (mat(I_PAN=ONES((9, 9))), {}, "s.mat contains I_PAN, expected at least ms and pan"),
        (mat(), {}, "s.mat contains no arrays, expected at least ms and pan"),
        (
            mat(I_MS=ONES((80, 80, 4, 2)), I_PAN=ONES((320, 320))),
            {},
            r"The ms of s.mat has shape \[80, 80, 4, 2\], expected one scene \[H, W, C\]",
        ),
        (
            mat(I_MS_LR=ONES((80, 80, 4)), I_PAN=ONES((300, 320))),
            {},
            r"The pan of s.mat has shape \[1, 1, 300, 320\], expected \[1, 1, 320, 320\]",
        ),
        (h5(ms=ONES((1, 4, 80, 80))), {}, "s.h5 contains ms, expected at least ms and pan"),
        (h5(ms=ONES((4, 80, 80)), pan=ONES((1, 320, 320))), {}, r"expected \[N, C, H, W\]"),
        (
            h5(ms=ONES((2, 4, 16, 16)), pan=ONES((2, 1, 64, 64)), gt=ONES((2, 8, 64, 64))),
            {},
            r"The gt of s.h5 has shape \[2, 8, 64, 64\], expected \[2, 4, 64, 64\]",
        ),
        (
            h5(ms=ONES((2, 4, 16, 16)), pan=ONES((2, 1, 64, 64)), gt=ONES((2, 4, 64, 64))),
            {},
            "imagery is 64 x 64 pixels, expected 73 x 73 .* pass `crop=16` or less",
        ),
        (
            h5(ms=np.full((2, 4, 80, 80), np.nan), pan=ONES((2, 1, 320, 320))),
            {},
            "The MS of scene 1 of s.h5 has 25600 non-finite values",
        ),
        (rasters(bands=3), {}, "has 3 bands, expected the 4 of QuickBird"),
        (rasters(ms=(40, 40)), {}, "imagery is 40 x 40 pixels, expected 73 x 73 or more"),
        (rasters((96, 96), ms=(24, 24)), {}, "imagery is 24 x 24 pixels, .*; give a larger scene"),
        (rasters(), {"nodata": 1}, "No 8 x 8 pixels of MS are valid in both"),
        (rasters(), {"bands": [1, 2, 3, 9]}, "ms.tif has no band 9"),
        (rasters(), {"methods": ["GSA"]}, "GSA at reduced resolution: The fused image has"),
    ],
)
def test_unusable_input_is_rejected(tmp_path, monkeypatch, make, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SSDiffError, match=message):
        evaluate(make(tmp_path), **{"sensor": "qb", **options})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "No fused rasters were given"),
        ({"inputs": ["truth.tif", "truth.tif"]}, "truth.tif is given twice"),
        ({"methods": ["GSA"]}, "`method` has no effect with `reference`; leave it out"),
        ({"sensor": "wv2", "bands": (1, 2, 3)}, "has 3 bands, expected the 8 of WorldView-2"),
        ({"nodata": 7}, "The reference truth.tif has no valid pixel"),
        ({"inputs": ["small.tif"]}, "small.tif is 80 x 80 pixels, expected the 88 x 96 of"),
        ({"inputs": ["few.tif"]}, "few.tif has 3 bands, expected the 4 of truth.tif"),
        ({"inputs": ["off.tif"]}, "grid of off.tif is up to 0.50 pixels off that of truth.tif"),
        ({"inputs": ["other_crs.tif"]}, "other_crs.tif is in EPSG:32632, expected EPSG:32631"),
        ({"inputs": ["empty.tif"]}, "empty.tif has no valid pixel where the reference is valid"),
        ({"inputs": ["none.tif"]}, "The fused image cannot be read"),
        ({"crop": 40}, "imagery is 88 x 96 pixels, expected 111 x 111"),
    ],
)
def test_incomparable_fused_rasters_are_rejected(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    image = pair(0, 4, 96, 88)[1]
    if "nodata" in change:
        image[:] = 7
    write_raster("truth.tif", image)
    write_raster("small.tif", image[:, :80, :80])
    write_raster("few.tif", image[:3])
    write_raster("off.tif", image, product(GRID, Affine.translation(0.5, 0)))
    write_raster("other_crs.tif", image, crs="EPSG:32632")
    write_raster("empty.tif", image * 0, nodata=0)
    arguments = {"inputs": ["truth.tif"], "sensor": "qb", "reference": "truth.tif", **change}
    with pytest.raises(SSDiffError, match=message):
        evaluate(arguments.pop("inputs"), **arguments)


def test_bands_in_another_order_and_empty_pixels_are_warned_of(tmp_path):
    pan, ms = pair(1, 4, 80, 80)
    ms[:, :, :8] = pan[:, :32] = 0
    files = write_pair(tmp_path, pan, ms)
    with rasterio.open(files[1], "r+") as file:
        file.descriptions = ("red", "green", "blue", "nir")
    progress = RecordingProgress()
    options = {"sensor": "qb", "crop": 10, "methods": ["EXP"], "progress": progress}
    evaluate(files, bands=(1, 2, 3, 4), **options)
    order, empty = progress.warnings[:2]
    assert order.startswith("bands 1, 3 of MS are red, blue (as they are named) and taken as blue")
    assert empty.endswith("if these pixels are empty, pass `nodata=0`")
    evaluate(files, nodata=0, **options)
    assert progress.warnings[2:] == []
