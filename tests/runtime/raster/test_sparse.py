"""Files that leave out blocks without data (``SPARSE_OK``), and the check that none is lost."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from ssdiff_trt.runtime.raster.gdal import FilledBlocks, check_complete
from tests.support.rasters import read_raster, smooth, write_raster


@pytest.mark.parametrize("marked", ["nodata", "mask", "zeros"])
@pytest.mark.parametrize(
    ("driver", "layout"),
    [
        ("GTiff", {}),
        ("GTiff", {"INTERLEAVE": "BAND", "BLOCKXSIZE": "64", "BLOCKYSIZE": "32"}),
        ("GTiff", {"TILED": "NO", "BLOCKYSIZE": "16"}),
        ("COG", {"BLOCKSIZE": "128"}),
    ],
)
def test_blocks_without_data_are_missing_from_a_sparse_file(make_pair, run, driver, layout, marked):
    """And the run does not take their absence for a full disk, at its end."""
    valid = np.zeros((160, 152), bool)
    valid[70:, :40] = valid[:20, 60:] = True
    pixels = smooth((4, 160, 152), seed=2) * valid
    held = {"nodata": {"nodata": 0}, "mask": {"mask": valid}, "zeros": {}}[marked]
    pair = make_pair(640, 608, ms={"pixels": pixels, **held})
    options = {"driver": driver, "block": 256}
    plain = run(pair, name="plain.tif", creation_options=layout, **options)
    sparse = run(pair, creation_options={"SPARSE_OK": "TRUE", **layout}, **options)
    np.testing.assert_array_equal(read_raster(sparse.output), read_raster(plain.output))
    with rasterio.open(sparse.output) as file, rasterio.open(plain.output) as other:
        np.testing.assert_array_equal(file.dataset_mask(), other.dataset_mask())
        there = [
            file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1)
            for (row, col), _ in file.block_windows(1)
        ]
    assert any(there)
    assert None in there or marked == "zeros"


def test_a_block_with_data_that_is_missing_from_a_sparse_file_is_noticed(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 64, 64), np.uint8), sparse_ok=True)
    blocks = FilledBlocks((32, 64))
    with pytest.raises(OSError, match="truncated"):
        check_complete(path)
    check_complete(path, blocks.lack)
    blocks.add(np.eye(8, dtype=bool), Window(8, 30, 8, 8))
    assert [blocks.lack(Window(0, row, 64, 32)) for row in (0, 32, 64)] == [False, False, True]
    with pytest.raises(OSError, match="truncated"):
        check_complete(path, blocks.lack)
