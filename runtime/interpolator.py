"""The 23-tap interpolator, which upsamples ``ms`` by 4 to ``lms``.

Pansharpening networks are commonly trained with this interpolator (Aiazzi et al., 2002;
``interp23tap`` of the DLPan-Toolbox). It doubles the grid twice with a half-band filter: input
samples are unchanged, samples between them are 12-tap weighted sums. The first doubling puts input
samples on odd indices, the second on even ones, so pixel ``n`` of ``ms`` becomes pixel ``4 n + 2``
of ``lms``, where the usual decimation ``[2::4]`` recovers it.

In real imagery, the centre of pixel ``n`` of ``ms`` lies at ``4 n + 1.5`` on the grid of ``pan`` if
both images cover the same area, and elsewhere if they are offset. The interpolator therefore takes
the position of pixel 0 as a parameter. Between the samples of the doubled grid it interpolates with
a 4-tap cubic (Keys, 1981, a = -1/2), whose error is negligible at four times the original sampling.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", bound=np.floating)
RATIO = 4
"""Ratio of the pixel sizes of MS and PAN."""
REACH = 9
"""Support in ``ms`` pixels on each side of an ``lms`` pixel, at :data:`PROTOCOL_POSITION`."""
HALO = REACH + 1
"""Support in ``ms`` pixels on each side of an ``lms`` pixel, at any position."""
PROTOCOL_POSITION = 2.0
"""Position of pixel 0 of ``ms`` on the grid of ``lms`` in simulated data sets (Wald protocol)."""
GROUND_POSITION = 1.5
"""Position of pixel 0 of ``ms`` on the grid of ``pan`` if its area is that of 4 x 4 PAN pixels."""

_BLOCK = 16  # ms pixels on a side that one matrix product upsamples to 64 lms pixels
# fmt: off
_HALF_BAND = 2 * np.array([
    0.305334091185, -0.072698593239, 0.021809577942,
    -0.005192756653, 0.000807762146, -0.000060081482,
])
# fmt: on


def _doubled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Double the first axis; input samples are on even indices. Zeros are assumed outside."""
    n, reach = len(x), len(_HALF_BAND)
    padded = np.pad(x, [(reach, reach), (0, 0)])
    out = np.empty((2 * n, x.shape[1]))
    out[0::2] = x
    out[1::2] = sum(
        weight * (padded[reach - k : reach - k + n] + padded[reach + 1 + k : reach + 1 + k + n])
        for k, weight in enumerate(_HALF_BAND)
    )
    return out


def _cubic(t: float) -> NDArray[np.float64]:
    """Weights (Keys, 1981) of four samples for a point ``t``, 0..1, past the second of them."""
    powers = np.array([1, t, t**2, t**3])
    return powers @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2


@cache
def interpolation_matrix(n: int, position: float = PROTOCOL_POSITION) -> NDArray[np.float64]:
    """The interpolator along one axis as a matrix ``[4 n, n + 2 HALO]``.

    Args:
        n: number of input pixels without their halo.
        position: position of the first pixel inside the halo on the output grid, -0.5..3.5.
    """
    impulses = np.eye(n + 2 * HALO)
    # The first doubling puts input samples on odd indices.
    doubled = np.roll(_doubled(impulses), 1, axis=0)
    fine = _doubled(doubled)
    whole, fraction = divmod(PROTOCOL_POSITION - position, 1)
    first = RATIO * HALO + int(whole) - 1
    matrix: NDArray[np.float64] = sum(
        weight * fine[first + k : first + k + RATIO * n]
        for k, weight in enumerate(_cubic(fraction))
    )
    matrix.flags.writeable = False
    return matrix


def interpolate_with_halo(
    ms: NDArray[Float], position: tuple[float, float] = (PROTOCOL_POSITION, PROTOCOL_POSITION)
) -> NDArray[Float]:
    """Upsample ``ms`` with its halo by 4.

    Args:
        ms: ``[..., h + 2 HALO, w + 2 HALO]``, float32 or float64, any unit.
        position: row and column, -0.5..3.5, of the first pixel inside the halo on the output grid.

    Returns:
        ``[..., 4 h, 4 w]`` of the same dtype.
    """
    height, width = (size - 2 * HALO for size in ms.shape[-2:])
    rows: NDArray[Float] = interpolation_matrix(height, position[0]).astype(ms.dtype)
    cols: NDArray[Float] = interpolation_matrix(width, position[1]).astype(ms.dtype)
    out: NDArray[Float] = np.matmul(np.matmul(rows, ms), cols.T)
    return out


def interpolate(
    ms: NDArray[Float],
    border: str = "symmetric",
    position: tuple[float, float] = (PROTOCOL_POSITION, PROTOCOL_POSITION),
) -> NDArray[Float]:
    """Upsample a whole image by 4; by default pixel ``n`` goes to ``4 n + 2``, as in training data.

    Args:
        ms: ``[..., h, w]``, float32 or float64, any unit.
        border: extension beyond the edges, a mode of :func:`numpy.pad`: ``symmetric`` for imagery;
            the DLPan-Toolbox uses ``wrap``.
        position: row and column, -0.5..3.5, of the first pixel on the output grid.

    Returns:
        ``[..., 4 h, 4 w]`` of the same dtype.
    """
    height, width = ms.shape[-2:]
    no_padding: list[tuple[int, int]] = [(0, 0)] * (ms.ndim - 2)
    # By blocks of one size, since the matrix of a whole large image would be huge.
    bottom, right = -height % _BLOCK, -width % _BLOCK
    padding = [*no_padding, (HALO, HALO + bottom), (HALO, HALO + right)]
    padded = np.pad(ms, padding, mode=border)  # type: ignore[call-overload]
    out = np.empty((*ms.shape[:-2], RATIO * (height + bottom), RATIO * (width + right)), ms.dtype)
    for row in range(0, height, _BLOCK):
        for col in range(0, width, _BLOCK):
            block = padded[..., row : row + _BLOCK + 2 * HALO, col : col + _BLOCK + 2 * HALO]
            r, c = RATIO * row, RATIO * col
            out[..., r : r + RATIO * _BLOCK, c : c + RATIO * _BLOCK] = interpolate_with_halo(
                block, position
            )
    return out[..., : RATIO * height, : RATIO * width]
