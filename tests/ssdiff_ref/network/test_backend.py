"""PyTorch as a backend."""

from __future__ import annotations

import pytest

from ssdiff_ref.network.backend import TorchBackend


@pytest.mark.parametrize(("options", "batch"), [({}, 1), ({"batch": 3}, 3)])
def test_tiles_are_run_one_at_a_time_unless_stated(bundle4, options, batch):
    assert TorchBackend(bundle4, **options).batch == batch
