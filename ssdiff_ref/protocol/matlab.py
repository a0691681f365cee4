"""Arrays of numbers in MATLAB files of any version."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from ssdiff_ref.protocol.hdf5 import holds_numbers, numbers_in
from ssdiff_trt.runtime.files import reading

_HEADER = 128
"""Bytes before the first element of a file of version 5; its last two state the byte order."""
_TYPES = {*range(1, 8), 9, *range(12, 19)}
"""Types of elements in version 5."""
_CLASSES = range(1, 19)
"""Classes of its arrays."""
_MATRIX, _COMPRESSED = 14, 15
_DEEPEST = 50
"""Elements inside each other."""


def read_matlab(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of real numbers of a file, by name, with axes in MATLAB's order.

    Raises:
        InputError: if the file is damaged.
    """
    with reading(f"{path} cannot be read as a MATLAB file", "check the file", MatReadError):
        content = path.read_bytes()
        if content[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
            _check_elements(content[_HEADER:], "<" if content[126:128] == b"IM" else ">")
        try:
            variables = loadmat(path)
        except NotImplementedError:  # version 7.3 is HDF5, with the axes reversed
            with h5py.File(path) as file:
                return {
                    name: numbers_in(file, name)[()].T
                    for name, value in file.items()
                    if holds_numbers(value)
                }
        return {
            name: value
            for name, value in variables.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "iuf"
        }


def _check_elements(content: bytes, order: str, depth: int = 0) -> None:
    """Check types and sizes of all elements; SciPy takes unknown types for places in memory.

    Raises:
        ValueError: if one is unknown, or its content is not there.
    """
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, after = place + 8, place + 8 + size
        if kind >> 16:  # up to 4 bytes lie in the tag itself
            kind, size = kind & 0xFFFF, kind >> 16
            start, after = place + 4, place + 8
        elif kind != _COMPRESSED:
            after += -size % 8
        if kind not in _TYPES or start + size > len(content) or depth > _DEEPEST:
            raise ValueError(f"it has an element of type {kind} and {size} bytes at {place}")
        inside = content[start : start + size]
        if kind == _COMPRESSED:
            _check_elements(zlib.decompress(inside), order, depth + 1)
        elif kind == _MATRIX and size:
            flags = struct.unpack_from(f"{order}I", inside, 8)[0]
            if flags & 0xFF not in _CLASSES:
                raise ValueError(f"it has an array of class {flags & 0xFF}")
            _check_elements(inside, order, depth + 1)
        place = after
