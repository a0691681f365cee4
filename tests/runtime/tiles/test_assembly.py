"""Images of tiles are put where the tiles were."""

from __future__ import annotations

import pytest

from tests.support.backends import StandIn
from tests.support.rasters import leftovers


class Forgetful(StandIn):
    """Loses the last image of each batch."""

    def sample(self, batches, schedule):
        return (images[:-1] for images in super().sample(batches, schedule))


def test_a_backend_that_loses_images_leaves_no_output(make_pair, run, tmp_path):
    pair = make_pair()
    before = leftovers(tmp_path)
    with pytest.raises(ValueError, match="zip"):
        run(pair, Forgetful(), batch=2)
    assert leftovers(tmp_path) == before
