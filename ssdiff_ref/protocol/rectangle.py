"""The largest rectangle of a scene without nodata."""

from __future__ import annotations

import numpy as np

from ssdiff_ref.quality.checks import Mask


def largest_rectangle(valid: Mask, multiple: int = 1, smallest: int = 1) -> tuple[range, range]:
    """Find the entirely valid rectangle with the most pixels.

    Args:
        valid: ``[H, W]``, true where a pixel is valid.
        multiple: both sides are multiples of this many pixels.
        smallest: smallest side allowed, in pixels.

    Returns:
        Rows and columns of the rectangle; empty ranges if there is none.
    """

    def usable(size: int) -> int:
        size -= size % multiple
        return size if size >= smallest else 0

    height, width = valid.shape
    if valid.all():
        return range(usable(height)), range(usable(width))
    best, most_pixels = (range(0), range(0)), 0
    depth = np.zeros(width + 1, dtype=int)  # valid pixels above, this row included
    for row in range(height):
        depth[:-1] = np.where(valid[row], depth[:-1] + 1, 0)
        # Rectangles that may still extend to the right: leftmost column and depth, by increasing
        # depth. The 0 beyond the last column closes all of them.
        open_rectangles: list[tuple[int, int]] = []
        for col, level in enumerate(depth.tolist()):
            left = col
            while open_rectangles and open_rectangles[-1][1] >= level:
                left, tall = open_rectangles.pop()
                rows_used, cols_used = usable(tall), usable(col - left)
                if rows_used * cols_used > most_pixels:
                    most_pixels = rows_used * cols_used
                    top = row + 1 - tall
                    best = range(top, top + rows_used), range(left, left + cols_used)
            open_rectangles.append((left, level))
    return best
