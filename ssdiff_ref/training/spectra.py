"""Eight bands from four: the spectra of a hyperspectral scene that show the same four.

Sharp imagery has four bands, and bands interpolated between them hold nothing new. Materials differ
in more: here each pixel gets the bands of WorldView-2 and -3 that pixels of the same colour have in
a hyperspectral scene.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import reading

Edges = tuple[tuple[float, float], ...]

AERIAL: Edges = ((430, 490), (535, 585), (610, 660), (835, 885))
"""Edges in nm of blue, green, red and near infrared of aerial cameras (Leica ADS)."""
WORLDVIEW: Edges = (
    (400, 450),
    (450, 510),
    (510, 580),
    (585, 625),
    (630, 690),
    (705, 745),
    (770, 895),
    (860, 1040),
)
"""Edges in nm of the bands of WorldView-2 and -3, as the operator states them."""
_ALIKE = 4
"""Spectra of similar colour that are averaged, weighted by the inverse of their distance."""
_SCALE = 2000
"""Mean of the result, which is stored as whole numbers."""


class SpectralLibrary:
    """Pairs of colours: four bands, and the eight of WorldView, of the same pixels.

    Args:
        path: ``.npz`` with ``image`` ``[H, W, C]`` and ``wavelengths`` ``[C]`` in nm.

    Raises:
        InputError: if it is no such file, or does not cover the bands.
    """

    def __init__(self, path: Path) -> None:
        remedy = "give an .npz with image [H, W, C] and wavelengths [C] in nm"
        with reading(f"{path} cannot be read as a hyperspectral scene", remedy):
            with path.open("rb") as file, np.load(file) as content:
                image, wavelengths = content["image"], content["wavelengths"]
            spectra = image.reshape(-1, len(wavelengths)).astype(np.float64)
        coarse, fine = (_seen(spectra, wavelengths, edges, path) for edges in (AERIAL, WORLDVIEW))
        bright = (coarse > 0).all(axis=1) & (fine > 0).all(axis=1)
        if bright.sum() < _ALIKE:
            raise InputError(f"{path} has no spectra above 0 in all bands; {remedy}.")
        coarse, fine = (bands[bright] / bands[bright].mean(axis=0) for bands in (coarse, fine))
        self._colours = cKDTree(_colour(coarse))
        self._fine = (fine / coarse.mean(axis=1, keepdims=True)).astype(np.float32)

    def expand(self, pixels: NDArray[Any]) -> NDArray[np.uint16]:
        """Eight bands of an image of four.

        Args:
            pixels: blue, green, red and near infrared ``[4, H, W]``, any unit; a pixel that is 0
                in all bands is nodata.

        Returns:
            ``[8, H, W]``, likewise.
        """
        valid = (pixels != 0).any(axis=0)
        coarse = np.maximum(pixels[:, valid].T, 0.5).astype(np.float64)
        coarse /= coarse.mean(axis=0)
        distances, alike = self._colours.query(_colour(coarse), _ALIKE)
        weights = 1 / (distances + 0.02)
        weights /= weights.sum(axis=1, keepdims=True)
        fine = np.einsum("nk,nkb->nb", weights, self._fine[alike])
        fine *= coarse.mean(axis=1, keepdims=True)
        out = np.zeros((len(WORLDVIEW), *valid.shape), np.uint16)
        out[:, valid] = np.rint(fine.T * _SCALE).clip(1, 65535)
        return out


def _colour(bands: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of bands ``[n, C]`` relative to their mean: colour without brightness."""
    return np.log(bands / bands.mean(axis=1, keepdims=True))


def _seen(
    spectra: NDArray[np.float64], wavelengths: NDArray[Any], edges: Edges, path: Path
) -> NDArray[np.float64]:
    """Means ``[n, bands]`` of spectra over each band."""
    inside = [(wavelengths >= low) & (wavelengths <= high) for low, high in edges]
    if not all(band.any() for band in inside):
        raise InputError(f"{path} does not cover {edges[0][0]} to {edges[-1][1]} nm; give another.")
    return np.stack([spectra[:, band].mean(axis=1) for band in inside], axis=1)
