"""Memory does not grow with the scene."""

from __future__ import annotations

import pytest

from benchmarks.memory import peak


@pytest.mark.slow
def test_memory_is_bounded_and_does_not_grow():
    """Without the network, in MB; ``docs/memory.py`` draws it up to 20000 on a side."""
    peaks = {size: peak(size) for size in (5000, 10000)}
    assert peaks[5000] < 500
    assert peaks[10000] < 1.1 * peaks[5000]
