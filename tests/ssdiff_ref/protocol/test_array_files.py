"""Array files are known by their suffixes, in capitals too."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from ssdiff_ref.protocol.array_files import open_arrays


@pytest.mark.parametrize("name", ["X.MAT", "x.Mat"])
def test_a_matlab_file_is_read_whatever_the_case_of_its_suffix(golden_mat, tmp_path, name):
    shutil.copy(golden_mat, tmp_path / name)
    expected, dataset = (open_arrays(path, "wv3") for path in (golden_mat, tmp_path / name))
    np.testing.assert_array_equal(dataset.read(0).ms, expected.read(0).ms)


def test_an_hdf5_file_is_read_whatever_the_case_of_its_suffix(tmp_path):
    with h5py.File(tmp_path / "X.H5", "w") as file:
        file["ms"], file["pan"] = np.ones((1, 4, 32, 32)), np.ones((1, 1, 128, 128))
    assert open_arrays(tmp_path / "X.H5", "generic").count == 1
