"""HDF5 files: opening them, and their arrays of numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import reading

_LARGEST_RATIO = 1100
"""Bytes of an array for each byte of its file, at most: deflate packs 1032 into one."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file.

    Raises:
        InputError: if it, or what is read inside the block, is damaged.
    """
    with reading(f"{path} cannot be read as HDF5", "check the file"), h5py.File(path) as file:
        yield file


def holds_numbers(value: Any) -> bool:
    """Whether something in a file is an array of real numbers."""
    return isinstance(value, h5py.Dataset) and value.shape is not None and value.dtype.kind in "iuf"


def numbers_in(file: Any, name: str) -> Any:
    """The dataset of a name.

    Args:
        file: opened file.
        name: of the dataset.

    Raises:
        InputError: if it is no array of numbers, or states more of them than its file can hold.
    """
    dataset, path = file[name], file.filename
    if not holds_numbers(dataset):
        raise InputError(f"The {name} of {path} is no array of numbers, expected one; replace it.")
    size, own = math.prod(dataset.shape) * dataset.dtype.itemsize, os.path.getsize(path)
    elsewhere = dataset.is_virtual or dataset.external
    if not elsewhere and size > _LARGEST_RATIO * own:
        raise InputError(
            f"The {name} of {path} has shape {list(dataset.shape)}, {size / 2**30:.3g} GiB, which "
            f"a file of {own / 2**20:.3g} MiB cannot hold; it is damaged or was never filled."
        )
    return dataset
