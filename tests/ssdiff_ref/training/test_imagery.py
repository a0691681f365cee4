"""Training imagery: reading of rasters, packing, crops."""

import io
import json

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine
from torch import Generator

from ssdiff_ref.training.config import Source
from ssdiff_ref.training.imagery import (
    Crops,
    TrainingImage,
    holds_pairs,
    make_scenes,
    pack,
    read_sources,
    unpack,
)
from ssdiff_ref.training.pairs import SimulatedPairs
from ssdiff_trt.runtime.errors import SSDiffError
from tests.support.imagery import write_raster

CPU = torch.device("cpu")
RECIPE = """
bands = 4
seed = 3
learning_rate = 1e-3
warmup = 2
ema = 0.9
validate_every = 3
save_every = 100
validation_patches = 2
[[stages]]
iterations = 4
patch = 16
batch = 2
[[stages]]
iterations = 2
patch = 32
batch = 1
[[sources]]
name = "leaves"
scenes = 2
size = 448
held_out = 0.5
"""


def test_crops_avoid_nodata_and_held_out_columns():
    pixels = np.full((2, 80, 200), 7, np.uint16)
    pixels[:, :, 150:] = 9
    pixels[:, 10:20, 30:40] = 0
    source = Source(name="a", files=("a.tif",), held_out=0.25)
    image = TrainingImage(pixels, source)
    for held_out, value in ((False, 7), (True, 9)):
        crops = Crops([image.part(held_out)], Generator().manual_seed(0), CPU)
        drawn, pan, _ = crops.cut(0, 40, 64)
        assert pan is None
        assert (drawn == value).all()


def test_packed_imagery_is_unpacked_unchanged(tmp_path):
    source = Source(name="leaves", scenes=1, size=128, decimations=(1, 2), weight=2)
    images = make_scenes([source], 4, seed=1)
    pack(images, tmp_path / "packed.npz")
    (unpacked,) = unpack(tmp_path / "packed.npz")
    assert unpacked.source == source
    assert np.array_equal(unpacked.pixels, images[0].pixels)


def test_rasters_on_different_grids_and_pan_are_stacked_to_one_image(tmp_path):
    random = np.random.default_rng(0)
    coarse = random.integers(1, 1000, (8, 8)).astype(np.uint16)
    for name, values, size in (
        ("a.tif", coarse, 20.0),
        ("b.tif", np.kron(coarse, np.ones((2, 2), np.uint16)), 10.0),
        ("pan.tif", np.full((16, 16), 500, np.uint16), 10.0),
    ):
        with rasterio.open(
            tmp_path / name,
            "w",
            driver="GTiff",
            count=1,
            dtype="uint16",
            crs="EPSG:32631",
            height=len(values),
            width=len(values),
            transform=Affine(size, 0, 0, 0, -size, 160),
        ) as file:
            file.write(values, 1)
    source = Source(name="s", files=("a.tif", "b.tif"), stack=True, pan="pan.tif")
    (image,) = read_sources([source], tmp_path)
    assert image.with_pan
    assert image.pixels.shape == (3, 8, 8)
    assert np.array_equal(image.pixels[0], coarse)
    assert np.corrcoef(image.pixels[1].ravel(), coarse.ravel())[0, 1] > 0.95
    assert (image.pixels[2] == 500).all()


@pytest.mark.parametrize(
    ("dtype", "value", "nodata"),
    [
        ("float32", 0.37, None),
        ("float64", 0.37, -9999.0),
        ("float32", 1.25, float("nan")),
        ("int16", -5, -32768),
        ("uint32", 70000, 0),
        ("uint16", 1234, 65535),
        ("uint8", 17, 255),
    ],
)
def test_values_of_any_type_are_read_as_they_are_and_nodata_as_holes(
    tmp_path, dtype, value, nodata
):
    values = np.full((3, 24, 20), value, dtype)
    values[1] = values[1] * 2
    declared = value if nodata is None else nodata
    if nodata is not None:
        values[:, 5, 6] = nodata
    values[2, :3] = declared  # in one band is enough where nodata is not 0
    write_raster(tmp_path / "a.tif", values, nodata=nodata)
    source = Source(name="s", files=("a.tif",))
    (image,) = read_sources([source], tmp_path)
    expected = values.astype("float32")
    if nodata is not None:
        expected[:, 5, 6] = 0
        if nodata != 0:
            expected[:, :3] = 0
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.pixels.dtype == (dtype if dtype in ("uint8", "uint16") else "float32")
    pack([image], tmp_path / "p.npz")
    (again,) = unpack(tmp_path / "p.npz")
    np.testing.assert_array_equal(again.pixels, image.pixels)
    assert again.pixels.dtype == image.pixels.dtype
    (stated,) = read_sources([source.model_copy(update={"nodata": float(value)})], tmp_path)
    holes = (values[0].astype("float32") == np.float32(value)) | (values == 0).all(axis=0)
    if np.dtype(dtype).kind in "iu":
        np.testing.assert_array_equal((stated.pixels == 0).all(axis=0), holes)


def test_masks_and_places_beyond_a_file_are_holes(tmp_path):
    values = np.full((2, 24, 24), 300, "int16")
    path = write_raster(tmp_path / "a.tif", values)
    mask = np.ones((24, 24), bool)
    mask[:4] = False
    with rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    half = write_raster(tmp_path / "b.tif", np.full((1, 24, 12), 80, "uint8"))
    source = Source(name="s", files=("a.tif", "b.tif"), stack=True)
    (image,) = read_sources([source], tmp_path)
    assert half
    seen = mask.copy()
    seen[:, 12:] = False
    np.testing.assert_array_equal(image.pixels[:, seen].T, [[300, 300, 80]] * seen.sum())
    assert (image.pixels[:, ~seen] == 0).all()


def test_reflectance_trains_like_its_digital_numbers():
    counts = np.random.default_rng(0).integers(500, 5000, (4, 128, 128)).astype("float32")
    batches = []
    for pixels in (counts, counts / 10000):
        pairs = SimulatedPairs(
            [TrainingImage(pixels, Source(name="a", files=("a.tif",), decimations=(1, 4)))],
            4,
            Generator().manual_seed(0),
            CPU,
        )
        batches.append(pairs.draw(32, 4))
    for one, other in zip(*batches, strict=True):
        difference = (one - other).abs()
        # A value between two digital numbers may be rounded to either.
        assert difference.max() < 1 / 254
        assert (difference > 1e-4).float().mean() < 1e-3


def test_too_small_imagery_is_rejected():
    image = TrainingImage(np.ones((4, 50, 50), np.uint8), Source(name="a", files=("a.tif",)))
    pairs = SimulatedPairs([image], 4, Generator(), CPU)
    with pytest.raises(SSDiffError, match=r"No source has 1\d\d x 1\d\d pixels"):
        pairs.draw(32, 1)


def test_image_without_valid_pixels_gives_no_crops():
    image = TrainingImage(np.zeros((4, 64, 64), np.uint16), Source(name="sea", files=("sea.tif",)))
    crops = Crops([image], Generator(), CPU)
    assert not list(crops.choices(lambda step: 32))


@pytest.mark.parametrize("name", ["X.NPY", "X.TIF"])
def test_imagery_is_known_by_its_suffix_in_capitals_too(tmp_path, name):
    pixels = np.arange(4 * 16 * 20, dtype=np.uint16).reshape(4, 16, 20)
    if name == "X.NPY":
        with (tmp_path / name).open("wb") as file:
            np.save(file, pixels)
    else:
        write_raster(tmp_path / name, pixels)
    (image,) = read_sources([Source(name="a", files=(name,))], tmp_path)
    np.testing.assert_array_equal(image.pixels, pixels)
    (tmp_path / "T.H5").touch()
    assert holds_pairs("T.H5")
    assert not read_sources([Source(name="a", files=("T.H5",))], tmp_path)


@pytest.mark.parametrize("name", ["p.npz", "P.NPZ", "packed"])
def test_packed_imagery_may_have_any_name(tmp_path, name):
    pixels = np.full((1, 8, 8), 3, np.uint16)
    pack([TrainingImage(pixels, Source(name="a", files=("a.tif",)))], tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (image,) = unpack(tmp_path / name)
    np.testing.assert_array_equal(image.pixels, pixels)


def _saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.npy cannot be read as an array of numpy"),
        (b"PK\x03\x04", "x.npy cannot be read as an array of numpy"),
        (_saved(np.ones((3, 4, 5)))[:-9], "x.npy cannot be read as an array of numpy"),
        (b"\x93NUMPY\x01\x00\x04\x00{(((", "x.npy cannot be read as an array of numpy"),
        (_saved(np.ones((4, 5))), r"x.npy has shape \[4, 5\], expected three axes"),
        (_saved(np.ones((4, 0, 5))), r"x.npy has shape \[4, 0, 5\], expected three axes"),
        (_saved(np.ones((4, 5, 5), complex)), "x.npy has values of type complex128, expected"),
        (_saved(np.full((4, 5, 5), "a")), "x.npy has values of type <U1, expected numbers"),
    ],
)
def test_a_damaged_array_file_gives_one_sentence(tmp_path, content, message):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(SSDiffError, match=message):
        read_sources([Source(name="a", files=("x.npy",))], tmp_path)
    with pytest.raises(SSDiffError, match="cannot be read as packed imagery"):
        unpack(tmp_path / "x.npy")


SOURCE = {"name": "a", "files": ["a.tif"]}


@pytest.mark.parametrize(
    ("told", "picture", "reason"),
    [
        ([{"source": SOURCE}], np.ones((4, 8, 8), np.uint16), "with_pan"),
        ([1], np.ones((4, 8, 8), np.uint16), "not subscriptable"),
        ([{"source": {"name": "\udcff"}}], np.ones((4, 8, 8), np.uint16), "surrogates not allowed"),
        ([{"source": SOURCE, "with_pan": False}], np.ones((4, 8), np.uint16), r"shape \[4, 8\]"),
        ([{"source": SOURCE, "with_pan": False}], np.ones((4, 8, 8), np.int16), "of int16"),
    ],
)
def test_a_pack_of_something_else_gives_one_sentence(tmp_path, told, picture, reason):
    np.savez(tmp_path / "p.npz", told=np.array(json.dumps(told)), picture0=picture)
    with pytest.raises(SSDiffError, match=f"cannot be read as packed imagery .*{reason}"):
        unpack(tmp_path / "p.npz")
