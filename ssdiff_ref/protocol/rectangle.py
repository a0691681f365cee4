"""The largest part of a scene without a hole."""

from __future__ import annotations

import numpy as np

from ssdiff_ref.quality.checks import Mask


def largest_rectangle(valid: Mask, multiple: int = 1, smallest: int = 1) -> tuple[range, range]:
    """The rectangle with the most pixels among those that are valid throughout.

    Args:
        valid: ``[H, W]``.
        multiple: that both its sides have to be of.
        smallest: that both its sides have to be, at least.

    Returns:
        Its rows and columns; empty if there is none.
    """

    def whole(size: int) -> int:
        size -= size % multiple
        return size if size >= smallest else 0

    height, width = valid.shape
    if valid.all():
        return range(whole(height)), range(whole(width))
    best, most = (range(0), range(0)), 0
    depth = np.zeros(width + 1, dtype=int)  # of valid pixels above and including this row
    for row in range(height):
        depth[:-1] = np.where(valid[row], depth[:-1] + 1, 0)
        # Depths that may still grow to the right, increasing, each with its leftmost column. The
        # 0 beyond the last column closes all of them.
        growing: list[tuple[int, int]] = []
        for col, level in enumerate(depth.tolist()):
            left = col
            while growing and growing[-1][1] >= level:
                left, tall = growing.pop()
                down, across = whole(tall), whole(col - left)
                if down * across > most:
                    most = down * across
                    top = row + 1 - tall
                    best = range(top, top + down), range(left, left + across)
            growing.append((left, level))
    return best
