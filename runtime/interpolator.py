"""The 23-tap interpolator that makes ``lms`` from ``ms``.

Every pansharpening network of the field is trained on this interpolator (Aiazzi et al., 2002;
``interp23tap`` of the DLPan-Toolbox). It doubles the grid twice with a half-band filter: the
samples it was given stay as they are, the ones between are 12-tap weighted sums. The first
doubling leaves the given samples on odd indices, the second on even ones. So pixel ``n`` of ``ms``
lands on pixel ``4 n + 2`` of ``lms``, where the field's decimation ``[2::4]`` finds it again.

Imagery is not made like that: the centre of a pixel of ``ms`` lies at ``4 n + 1.5`` on the grid of
``pan`` when both cover the same ground, and anywhere else when they do not quite. So the
interpolator takes the position of pixel 0 as a parameter. Off the grid of the two doublings it
reads their result by a 4-tap cubic (Keys, 1981, a = -1/2), which at four times the original
sampling changes next to nothing.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", bound=np.floating)
RATIO = 4
REACH = 9
"""Pixels of ``ms`` on each side that a pixel of ``lms`` depends on, where the field puts them."""
HALO = REACH + 1
"""The same for any position."""
PROTOCOL_POSITION = 2.0
"""Where pixel 0 of ``ms`` lies on the grid of ``lms`` in the field's simulated data."""
GROUND_POSITION = 1.5
"""Where it lies when pixels are areas, and those of ``ms`` are 4 x 4 of ``pan``."""

_BLOCK = 16  # pixels of ms that one matrix product turns into 64 of lms
# fmt: off
_HALF_BAND = 2 * np.array([
    0.305334091185, -0.072698593239, 0.021809577942,
    -0.005192756653, 0.000807762146, -0.000060081482,
])
# fmt: on


def _doubled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Double the first axis of ``x``; given samples land on even indices. Ends see zeros."""
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
    """Keys' weights of the four samples around a point that is ``t`` past the second."""
    powers = np.array([1, t, t**2, t**3])
    return powers @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2


@cache
def interpolation_matrix(n: int, position: float = PROTOCOL_POSITION) -> NDArray[np.float64]:
    """The interpolator along one axis as a matrix ``[4 n, n + 2 HALO]``.

    It takes ``n`` pixels with :data:`HALO` neighbours on each side to the ``4 n`` pixels that they
    cover. ``position``, 1 to 2, is where the first of the ``n`` lies on the grid of the result.
    """
    impulses = np.eye(n + 2 * HALO)
    twice = np.roll(_doubled(impulses), 1, axis=0)  # the first doubling puts samples on odd indices
    fine = _doubled(twice)
    whole, part = divmod(PROTOCOL_POSITION - position, 1)
    first = RATIO * HALO + int(whole) - 1
    matrix: NDArray[np.float64] = sum(
        weight * fine[first + k : first + k + RATIO * n] for k, weight in enumerate(_cubic(part))
    )
    matrix.flags.writeable = False
    return matrix


def interpolate_with_halo(
    ms: NDArray[Float], position: tuple[float, float] = (PROTOCOL_POSITION, PROTOCOL_POSITION)
) -> NDArray[Float]:
    """Interpolate ``ms`` that carries its halo.

    Args:
        ms: ``[..., h + 2 HALO, w + 2 HALO]``, float32 or float64, any unit.
        position: row and column, 1 to 2, where the first pixel inside the halo lies on the grid
            of the result.

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
    """Interpolate a whole image by 4; by default as the field does, pixel ``n`` to ``4 n + 2``.

    Args:
        ms: ``[..., h, w]``, float32 or float64, any unit.
        border: how the image goes on beyond its edges, a mode of :func:`numpy.pad`:
            ``symmetric`` for imagery; ``wrap`` is what the DLPan-Toolbox does.
        position: row and column, 1 to 2, where the first pixel lies on the grid of the result.

    Returns:
        ``[..., 4 h, 4 w]`` of the same dtype.
    """
    height, width = ms.shape[-2:]
    edge: list[tuple[int, int]] = [(0, 0)] * (ms.ndim - 2)
    # Whole blocks, so that a large image costs a small matrix per block and not one huge matrix.
    tall, wide = -height % _BLOCK, -width % _BLOCK
    padded = np.pad(ms, [*edge, (HALO, HALO + tall), (HALO, HALO + wide)], mode=border)  # type: ignore[call-overload]
    out = np.empty((*ms.shape[:-2], RATIO * (height + tall), RATIO * (width + wide)), ms.dtype)
    for row in range(0, height, _BLOCK):
        for col in range(0, width, _BLOCK):
            block = padded[..., row : row + _BLOCK + 2 * HALO, col : col + _BLOCK + 2 * HALO]
            r, c = RATIO * row, RATIO * col
            out[..., r : r + RATIO * _BLOCK, c : c + RATIO * _BLOCK] = interpolate_with_halo(
                block, position
            )
    return out[..., : RATIO * height, : RATIO * width]
