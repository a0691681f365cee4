"""Memory does not grow with the scene."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from tests.conftest import PAN_GRID, UTM

RUN = r"""
import re, sys
from pathlib import Path
from runtime.pansharpen import pansharpen
from tests.conftest import StandIn
pansharpen(*sys.argv[1:4], bundle="generic4", backend=StandIn(pan=0.2))
# Not getrusage, whose peak starts with what the parent process had.
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def write_large(path, size, bands, transform):
    """A scene of noise, written block by block."""
    profile = {"driver": "GTiff", "height": size, "width": size, "count": bands, "dtype": "uint16"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "lzw"}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", crs=UTM, transform=transform, **profile, **layout) as file:
        for row in range(0, size, 512):
            for col in range(0, size, 512):
                height, width = min(512, size - row), min(512, size - col)
                block = rng.integers(300, 900, (bands, height, width), np.uint16)
                file.write(block, window=Window(col, row, width, height))
    return path


@pytest.mark.slow
def test_memory_is_bounded_and_does_not_grow(tmp_path):
    """Peak memory in MiB of a process that pansharpens a scene, PAN 6000 and 12000 on a side."""
    peaks = {}
    for size in (6000, 12000):
        pan = write_large(tmp_path / "pan.tif", size, 1, PAN_GRID)
        ms = write_large(tmp_path / "ms.tif", size // 4, 4, PAN_GRID * Affine.scale(4))
        words = [sys.executable, "-c", RUN, pan, ms, tmp_path / f"{size}.tif"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[size] = float(done.stdout)
        (tmp_path / f"{size}.tif").unlink()
    print(peaks)
    assert peaks[6000] < 600
    assert peaks[12000] < 1.15 * peaks[6000]
