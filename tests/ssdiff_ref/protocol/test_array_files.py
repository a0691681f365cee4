"""Array files are known by their suffixes; what is damaged or no imagery is refused."""

from __future__ import annotations

import shutil
import struct
import zlib

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from ssdiff_ref.protocol.array_files import open_arrays
from ssdiff_trt.runtime.errors import InputError


@pytest.mark.parametrize("name", ["X.MAT", "x.Mat"])
def test_a_matlab_file_is_read_whatever_the_case_of_its_suffix(golden_mat, tmp_path, name):
    shutil.copy(golden_mat, tmp_path / name)
    expected, dataset = (open_arrays(path, "wv3") for path in (golden_mat, tmp_path / name))
    np.testing.assert_array_equal(dataset.read(0).ms, expected.read(0).ms)


def test_an_hdf5_file_is_read_whatever_the_case_of_its_suffix(tmp_path):
    with h5py.File(tmp_path / "X.H5", "w") as file:
        file["ms"], file["pan"] = np.ones((1, 4, 32, 32)), np.ones((1, 1, 128, 128))
    assert open_arrays(tmp_path / "X.H5", "generic").count == 1


MS, PAN = np.ones((1, 4, 32, 32)), np.ones((1, 1, 128, 128))


@pytest.mark.parametrize(
    ("ms", "message"),
    [
        ({"data": h5py.Empty("f4")}, "The ms of .*x.h5 is no array of numbers, expected one"),
        ({"data": ["text"]}, "The ms of .*x.h5 is no array of numbers"),
        ({"data": MS.astype("c8")}, "The ms of .*x.h5 is no array of numbers"),
        (
            {"shape": (1, 4, 2**20, 2**20), "chunks": (1, 1, 16, 16), "dtype": "f4"},
            "1.64e.04 GiB, which a file",
        ),
        ({"shape": (2**30, 2**30), "chunks": (16, 16), "dtype": "f4"}, "GiB, which a file"),
    ],
)
def test_what_is_no_stack_of_numbers_in_hdf5_is_refused(tmp_path, ms, message):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["pan"] = PAN
        file.create_dataset("ms", **ms)
    with pytest.raises(InputError, match=message):
        open_arrays(tmp_path / "x.h5", "generic")


@pytest.mark.parametrize("link", [h5py.SoftLink("/nowhere"), h5py.SoftLink("/ms"), "group"])
def test_a_name_in_hdf5_that_leads_nowhere_is_refused(tmp_path, link):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["pan"] = PAN
        if link == "group":
            file.create_group("ms")
        else:
            file["ms"] = link
    with pytest.raises(InputError, match=r"x\.h5"):
        open_arrays(tmp_path / "x.h5", "generic")


def mat(tmp_path, **variables):
    given = {"I_MS": MS[0].transpose(1, 2, 0), "I_PAN": PAN[0, 0], **variables}
    savemat(tmp_path / "x.mat", given)
    return tmp_path / "x.mat"


def test_version_7_3_of_matlab_is_hdf5_with_reversed_axes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"I_MS": rng.random((32, 40, 4)), "I_PAN": rng.random((128, 160))}
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    sample = open_arrays(path, "generic").read(0)
    np.testing.assert_array_equal(sample.ms, arrays["I_MS"].transpose(2, 0, 1))
    np.testing.assert_array_equal(sample.pan, arrays["I_PAN"])


@pytest.mark.parametrize("bits", ["11", [], [1, 2], np.nan, np.inf, 1e30, 0.5, -1])
def test_bits_of_a_matlab_file_that_are_no_number_of_bits_are_refused(tmp_path, bits):
    path = mat(tmp_path, L=bits)
    if isinstance(bits, str):  # a text is no array of numbers, and is left alone
        assert open_arrays(path, "generic").scale.value == 2047
        return
    with pytest.raises(InputError, match=r"The L of x\.mat, .*expected a whole number"):
        open_arrays(path, "generic")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:128] + bytes(60) + content[188:],
        lambda content: content[:128] + struct.pack("<II", 15, 9) + b"not zlib.",
        # Types and classes that SciPy takes for places in memory.
        lambda content: content[:128] + struct.pack("<II", 999_999, 8) + content[136:],
        lambda content: content[:144] + struct.pack("<I", 250) + content[148:],
        lambda content: content.replace(struct.pack("<II", 9, 32 * 32 * 4 * 8), b"\xff" * 8),
        lambda content: (
            content[:128]
            + struct.pack("<II", 15, len(packed := zlib.compress(b"\x63" * 64)))
            + packed
        ),
    ],
)
def test_a_damaged_matlab_file_is_refused(tmp_path, change):
    path = mat(tmp_path)
    damaged = change(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be read as a MATLAB file"):
        open_arrays(path, "generic")
