from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from filelock import FileLock
from rasterio.transform import Affine, from_origin

from ssdiff_trt.runtime.bundle.store import bundle_for, open_bundle
from ssdiff_trt.runtime.interpolator import HALO, interpolate_with_halo
from ssdiff_trt.runtime.pansharpen import pansharpen

UTM = "EPSG:32631"
PAN_GRID = from_origin(500_000, 5_700_000, 0.5, 0.5)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What this user has exported and built has no say in the tests."""
    os.environ["SSDIFF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def bundle4():
    return bundle_for(4)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """One folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def golden8_weights(shared_folder):
    """The golden weights as a checkpoint of the authors' code would have them."""
    import torch

    from tests.golden_weights import golden_state

    path = shared_folder / "golden8.pt"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            torch.save(golden_state(8), path)
    return path


@pytest.fixture(scope="session")
def bundle8(shared_folder, golden8_weights):
    """An export of the golden weights, which the whole parity was part of."""
    from ssdiff_trt.export.bundle import export_bundle

    path = shared_folder / "golden8.ssdiff"
    with FileLock(f"{path}.lock"):  # made once, whichever worker needs it first
        if path.exists():
            return open_bundle(path)
        return export_bundle(golden8_weights, "wv3", path, timesteps=(900, 500, 0))


@pytest.fixture(scope="session")
def low4(shared_folder):
    """generic4 in every precision, with small tiles."""
    from ssdiff_trt.export.bundle import defaults_of, export_bundle

    path = shared_folder / "low4.ssdiff"
    with FileLock(f"{path}.lock"):
        if path.exists():
            return open_bundle(path)
        given = defaults_of(open_bundle("generic4").manifest) | {"tile": 32}
        return export_bundle("generic4", "generic", path, precisions=("fp16", "bf16"), **given)


EXAMPLE = Path(__file__).parent.parent / "examples" / "sentinel2"


@pytest.fixture(scope="session")
def samples4(shared_folder, low4):
    """Calibration samples of low4 on the example scene, as a file."""
    from ssdiff_trt.calibration.collection import collect

    path = shared_folder / "samples4.npz"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            given = {"full_scale": 10000, "tiles": 16, "bundle": low4}
            collect([EXAMPLE / "pan.tif", EXAMPLE / "ms.tif"], path, **given)
    return path


@pytest.fixture(scope="session")
def int8(shared_folder, low4, samples4):
    """low4 with graphs in INT8."""
    from ssdiff_trt.export.bundle import defaults_of, export_bundle

    path = shared_folder / "int8.ssdiff"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            given = defaults_of(low4.manifest)
            export_bundle(
                low4.path,
                "generic",
                path,
                precisions=("int8",),
                calibration=samples4,
                **given,
            )
    return open_bundle(path)


def write_raster(path, pixels, transform=None, crs=UTM, mask=None, descriptions=None, **profile):
    """Write ``[C, H, W]`` as a GeoTIFF; without a transform there is no georeferencing."""
    pixels = np.asarray(pixels)
    georeferencing = {} if transform is None else {"transform": transform, "crs": crs}
    colours = profile.pop("colorinterp", None)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(pixels),
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype,
        **georeferencing,
        **profile,
    ) as file:
        if colours:
            file.colorinterp = colours
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
        if descriptions:
            file.descriptions = descriptions
    return path


def read_raster(path):
    with rasterio.open(path) as file:
        return file.read()


def smooth(shape, seed=0, low=200, high=1800, knots=9):
    """A smooth random image ``[C, H, W]`` of digital numbers."""
    rng = np.random.default_rng(seed)
    bands, height, width = shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    image = np.zeros(shape)
    for band in range(bands):
        for _ in range(knots):
            fy, fx, phase = rng.uniform(-6, 6), rng.uniform(-6, 6), rng.uniform(0, 7)
            image[band] += np.cos(2 * np.pi * (fy * y + fx * x) + phase)
    image = (image - image.min()) / np.ptp(image)
    return np.rint(low + image * (high - low)).astype(np.uint16)


class PairMaker:
    """Writes a PAN and an MS raster of the same ground, with any changes to either."""

    def __init__(self, directory):
        self.directory = directory

    def __call__(self, height=160, width=192, bands=4, pan=None, ms=None):
        pan_parts = {"pixels": smooth((1, height, width), seed=1), "transform": PAN_GRID}
        ms_parts = {
            "pixels": smooth((bands, height // 4, width // 4), seed=2),
            "transform": PAN_GRID * Affine.scale(4),
        }
        return (
            write_raster(self.directory / "pan.tif", **pan_parts | (pan or {})),
            write_raster(self.directory / "ms.tif", **ms_parts | (ms or {})),
        )


@pytest.fixture
def make_pair(tmp_path):
    return PairMaker(tmp_path)


class StandIn:
    """A backend that costs nothing: the interpolated bands, plus a little of PAN and the noise.

    What it adds shows in the result, so that mistakes of place, order and seed do too.
    """

    batch = 5
    precision = "fp32"

    def __init__(self, pan=0.0, noise=0.0):
        self.pan, self.noise, self.batches = pan, noise, []

    def sample(self, batches, schedule):
        for tiles in batches:
            yield self.images(*tiles)

    def images(self, noise, pan, lms, ms):
        self.batches.append(len(lms))
        assert lms.shape == noise.shape == (len(lms), lms.shape[1], 64, 64)
        assert pan.shape == (len(lms), 1, 64, 64)
        assert ms.shape == (*lms.shape[:2], 16, 16)
        image = lms + self.pan * pan + self.noise * noise
        return image.clip(0, 1).astype(np.float32)

    def describe(self):
        return "stand-in"


@pytest.fixture
def run(tmp_path, bundle4):
    def run(pair, backend=None, name="out.tif", **options):
        options = {"bundle": bundle4, "backend": backend or StandIn()} | options
        return pansharpen(*pair, tmp_path / name, **options)

    return run


def interpolated(ms, position=(1.5, 1.5)):
    """What a run gives with a backend that adds nothing: MS on the grid of PAN, rounded."""
    halo = [(0, 0), (HALO, HALO), (HALO, HALO)]
    lms = interpolate_with_halo(np.pad(ms.astype(float), halo, mode="symmetric"), position)
    return np.rint(lms).clip(0, 2047)


def leftovers(directory):
    return sorted(set(os.listdir(directory)) - {"pan.tif", "ms.tif"})


@pytest.fixture(scope="session")
def golden_mat(tmp_path_factory):
    """The toolbox's WorldView-3 scene as a file of the toolbox."""
    from scipy.io import savemat

    from tests.dlpan import golden_arrays
    from tests.imagery import channels_last

    golden = golden_arrays()
    path = tmp_path_factory.mktemp("golden") / "wv3.mat"
    savemat(path, {"I_MS": channels_last(golden["I_MS"]), "I_PAN": golden["I_PAN"]})
    return path
