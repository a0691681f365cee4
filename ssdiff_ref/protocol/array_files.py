"""Array files as evaluation datasets: PanCollection ``.h5`` and DLPan-Toolbox ``.mat``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdiff_ref.protocol.datasets import Dataset, Sample, sensor_scale
from ssdiff_ref.protocol.hdf5 import numbers_in, open_hdf5
from ssdiff_ref.protocol.matlab import read_matlab
from ssdiff_ref.quality.checks import Image, fit_sensor
from ssdiff_ref.quality.quality_index import BLOCK
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.raster.image import band_numbers
from ssdiff_trt.runtime.raster.radiometry import choose_scale
from ssdiff_trt.runtime.sources import ValueType

SUFFIXES = (".h5", ".hdf5", ".mat")
"""Suffixes of array files."""

_MOST_BITS = 32

_Array = NDArray[Any]


@dataclass(frozen=True)
class _Stacks:
    """Arrays ``[N, C, H, W]`` of a file, by PanCollection's names."""

    shapes: dict[str, tuple[int, ...]]
    dtype: str
    bits: int
    """Bits per pixel stated by the file, or 0."""
    load: Callable[[int], dict[str, _Array]]
    """Reads the arrays of the scene of an index."""


def open_arrays(
    path: str | Path,
    sensor: str,
    *,
    bands: Sequence[int | str] | None = None,
    full_scale: float | None = None,
) -> Dataset:
    """Open a PanCollection ``.h5`` or a DLPan-Toolbox ``.mat`` as a dataset.

    An ``.h5`` contains ``gt``, ``lms``, ``ms`` and ``pan``, each ``[N, C, H, W]``. A ``.mat``
    contains one scene ``[H, W, C]`` under these names or as ``I_GT``, ``I_MS_LR``, ``I_MS`` and
    ``I_PAN``. There ``I_MS`` is ``lms`` or, if a quarter of PAN in size, ``ms``, and ``L`` may
    state the bits per pixel. Only ``ms`` and ``pan`` are required.

    Args:
        path: file to open.
        sensor: name of the sensor that acquired the imagery.
        bands: bands to use, counted from 1, in the sensor's order; all by default.
        full_scale: full scale of the digital numbers; that of the file or the sensor by default.

    Raises:
        SSDiffError: on missing arrays, mismatched shapes, or a number of bands that is not the
            sensor's.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"{path} is not a file; check the path.")
    stacks = _open_mat(path) if path.suffix.lower() == ".mat" else _open_h5(path)
    check_shapes(path, stacks.shapes)
    count, available = stacks.shapes["ms"][:2]
    band_indices = [band - 1 for band in band_numbers(bands, [None] * available, path.name)]
    optics = fit_sensor(sensor, len(band_indices))
    # Acquired pairs are cropped to whole blocks like rasters; simulated scenes are not cropped.
    multiple = 1 if "gt" in stacks.shapes else BLOCK
    rows, cols = (range(size - size % multiple) for size in stacks.shapes["pan"][-2:])

    def read(index: int) -> Sample:
        arrays = stacks.load(index)

        def image(role: str, ratio: int = 1) -> Image | None:
            if role not in arrays:
                return None
            return _float(arrays[role][band_indices, : len(rows) // ratio, : len(cols) // ratio])

        pan, ms = _float(arrays["pan"][0, : len(rows), : len(cols)]), image("ms", RATIO)
        assert ms is not None
        return Sample(pan, ms, image("lms"), image("gt"))

    return Dataset(
        name=path.name,
        count=count,
        sensor=optics,
        scale=choose_scale(
            ValueType("MS", stacks.dtype, stacks.bits), full_scale, sensor_scale(optics)
        ),
        rows=rows,
        cols=cols,
        simulated="gt" in stacks.shapes,
        read=read,
    )


def _float(array: _Array) -> Image:
    # One memory layout whatever the file's, so that sums are reproducible to the last bit.
    return np.ascontiguousarray(array, dtype=np.float64)


def _open_h5(path: Path) -> _Stacks:
    with open_hdf5(path) as file:
        roles = [role for role in ("gt", "lms", "ms", "pan") if role in file]
        _check_roles(path, roles, list(file))
        shapes = {role: numbers_in(file, role).shape for role in roles}
        dtype = str(file["ms"].dtype)

    def load(index: int) -> dict[str, _Array]:
        with open_hdf5(path) as file:
            return {role: file[role][index] for role in roles}

    return _Stacks(shapes, dtype, 0, load)


def _open_mat(path: Path) -> _Stacks:
    variables = read_matlab(path)
    pan = next((variables[name] for name in ("pan", "I_PAN") if name in variables), None)
    arrays = {}
    for role, names in (("gt", ("gt", "I_GT")), ("lms", ("lms",)), ("ms", ("ms", "I_MS_LR"))):
        for name in names:
            if name in variables:
                arrays[role] = variables[name]
    if "I_MS" in variables and pan is not None:
        interpolated = variables["I_MS"].shape[:2] == pan.shape[:2]
        arrays.setdefault("lms" if interpolated else "ms", variables["I_MS"])
    if pan is not None:
        arrays["pan"] = pan if pan.ndim > 2 else pan[..., None]
    _check_roles(path, list(arrays), list(variables))
    for role, array in arrays.items():
        if array.ndim != 3:
            raise InputError(
                f"The {role} of {path.name} has shape {list(array.shape)}, expected one scene "
                "[H, W, C]; rearrange it, or give an .h5 for several scenes."
            )
    stacked = {role: array.transpose(2, 0, 1)[None] for role, array in arrays.items()}
    return _Stacks(
        shapes={role: array.shape for role, array in stacked.items()},
        dtype=str(stacked["ms"].dtype),
        bits=_stated_bits(path, variables["L"]) if "L" in variables else 0,
        load=lambda index: {role: array[index] for role, array in stacked.items()},
    )


def _stated_bits(path: Path, stated: _Array) -> int:
    if stated.size != 1 or stated.item() not in range(1, _MOST_BITS + 1):
        raise InputError(
            f"The L of {path.name}, the bits per pixel, is {str(stated.tolist())[:40]}, "
            f"expected a whole number from 1 to {_MOST_BITS}; correct or remove it."
        )
    return int(stated.item())


def _check_roles(path: Path, roles: Sequence[str], names: Sequence[str]) -> None:
    if not {"ms", "pan"} <= set(roles):
        raise InputError(
            f"{path.name} contains {', '.join(names) or 'no arrays'}, expected at least ms and pan "
            "(PanCollection) or I_MS and I_PAN (DLPan-Toolbox); give a file with both."
        )


def check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that arrays of scenes fit each other.

    Args:
        path: their file, for the message.
        shapes: shape of each array, by PanCollection's names.

    Raises:
        InputError: if not.
    """
    ms = shapes["ms"]
    if len(ms) != 4 or not all(ms):
        raise InputError(
            f"The ms of {path.name} has shape {list(ms)}, expected [N, C, H, W] with no empty "
            "axis; rearrange its axes."
        )
    count, bands, height, width = ms
    pan_size = RATIO * height, RATIO * width
    full_shape = count, bands, *pan_size
    expected = {"gt": full_shape, "lms": full_shape, "pan": (count, 1, *pan_size)}
    for role, shape in expected.items():
        if shapes.get(role, shape) != shape:
            raise InputError(
                f"The {role} of {path.name} has shape {list(shapes[role])}, expected {list(shape)} "
                f"because ms has {list(ms)}; give arrays of the same scenes, PAN {RATIO} times "
                "the size of MS."
            )
