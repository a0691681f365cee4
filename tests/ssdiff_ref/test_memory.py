"""What reads a whole scene says how much memory that takes, and does not try what is too much."""

from __future__ import annotations

import pytest

from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.evaluation.fused import open_fused
from ssdiff_ref.protocol.datasets import open_pair
from ssdiff_ref.protocol.wald import simulate
from ssdiff_trt.runtime import memory
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import PairOptions
from tests.support.progress import RecordingProgress
from tests.support.rasters import leftovers


def train(pan, ms, folder):
    pytest.importorskip("torch")
    from ssdiff_ref.training.config import Source
    from ssdiff_ref.training.imagery import read_sources

    source = Source(name="a", files=("ms.tif",), pan="pan.tif", decimations=(1,))
    read_sources([source], folder)


READERS = [
    (
        lambda pan, ms, folder: fuse(pan, ms, folder / "o.tif", method="EXP"),
        "EXP of all .* 2.46 MB",
    ),
    (lambda pan, ms, folder: simulate(pan, ms, folder / "o"), "The whole of .* 461 kB"),
    (
        lambda pan, ms, folder: open_pair(
            pan, ms, "generic", PairOptions(full_scale=2047), progress=RecordingProgress()
        ),
        "The whole of .* 461 kB",
    ),
    (lambda pan, ms, folder: open_fused([ms], ms, "generic"), "of 1 fused image, .* 123 kB"),
    (train, "Reading 4 bands of the source a, 48 x 40 pixels each, takes 61.4 kB"),
]


@pytest.mark.parametrize(("read", "sentence"), READERS)
def test_a_scene_that_no_memory_holds_is_refused(make_pair, tmp_path, read, sentence, monkeypatch):
    pair = make_pair()
    monkeypatch.setattr(memory, "usable_memory", lambda: 60_000)
    with pytest.raises(InputError, match=f"{sentence} of memory or more, .* 60 kB; cut out a sm"):
        read(*pair, tmp_path)
    assert leftovers(tmp_path) == []
