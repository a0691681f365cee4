"""A training that cannot be is refused before its folder is made."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ssdiff_ref.training.run import train
from ssdiff_trt.runtime.errors import InputError

RECIPE = """
bands = 4
validation_patches = 1
[[sources]]
name = "a"
files = ["a.{suffix}"]
held_out = 0.5
[[stages]]
iterations = 1
patch = 128
"""


def pairs(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        for role, bands, side in (("gt", 4, 64), ("lms", 4, 64), ("ms", 4, 16), ("pan", 1, 64)):
            file[role] = np.ones((2, bands, side, side))


def odd_pairs(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        for role in ("gt", "lms", "ms", "pan"):
            file[role] = np.ones((2, 4, 64, 64))


def group(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        for role in ("gt", "lms", "ms", "pan"):
            file.create_group(role)


def image(folder):
    np.save(folder / "a.npy", np.ones((4, 200, 200), np.uint16))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (pairs, "has patches of 64 pixels, expected 128 or more"),
        (odd_pairs, r"The gt of a.h5 has shape"),
        (group, r"The gt of .*a.h5 is no array of numbers"),
        (image, "No source has .* which patches of 128 pixels need"),
    ],
)
def test_imagery_that_does_not_do_leaves_no_folder(tmp_path, write, message):
    write(tmp_path)
    suffix = "npy" if write is image else "h5"
    (tmp_path / "recipe.toml").write_text(RECIPE.format(suffix=suffix))
    with pytest.raises(InputError, match=message):
        train(tmp_path / "recipe.toml", tmp_path / "run", data=tmp_path)
    assert not (tmp_path / "run").exists()
