"""Memory does not grow with the scene."""

from __future__ import annotations

import pytest

from benchmarks.memory import peak


@pytest.mark.slow
def test_memory_is_bounded_and_does_not_grow():
    """Without the network, in MB; both scenes have blocks of 2000 x 2000 pixels, 4 and 25."""
    peaks = {size: peak(size) for size in (4000, 10000)}
    assert peaks[4000] < 500
    assert peaks[10000] < 1.1 * peaks[4000]
