"""Files of data that contain code, as pickles may: they are refused, and the code does not run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from ssdiff_trt.runtime.errors import InputError

pytest.importorskip("torch")


class Payload:
    """Makes a file when it is read from a pickle."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def array(payload):
    """An array of Python objects, which numpy writes as a pickle."""
    held = np.empty((1, 1, 1), object)
    held[0, 0, 0] = payload
    return held


def pickled(path, payload):
    path.write_bytes(pickle.dumps(payload))


def pickled_in_torch(path, payload):
    import torch

    torch.save({"upsample.upsamle.0.weight": payload}, path)


def pickled_in_npy(path, payload):
    np.save(path, array(payload), allow_pickle=True)


def pickled_in_npz(path, payload):
    np.savez(path, about=array(payload), told=array(payload))


def samples(path):
    from ssdiff_trt.calibration.samples import read_about

    read_about(path)


def packed_imagery(path):
    from ssdiff_ref.training.imagery import unpack

    unpack(path)


def image(path):
    from ssdiff_ref.training.imagery import Source, read_sources

    read_sources([Source(name="a", files=(path.name,))], path.parent)


def weights(path):
    from ssdiff_ref.network.checkpoint import load_checkpoint

    load_checkpoint(path)


@pytest.mark.parametrize(
    ("read", "write", "suffix"),
    [
        (samples, pickled_in_npz, ".npz"),
        (samples, pickled, ".npz"),
        (packed_imagery, pickled_in_npz, ".npz"),
        (packed_imagery, pickled, ".npz"),
        (image, pickled_in_npy, ".npy"),
        (image, pickled, ".npy"),
        (weights, pickled_in_torch, ".pt"),
        (weights, pickled, ".pt"),
        (weights, pickled, ".safetensors"),
    ],
)
def test_code_in_a_pickle_is_not_run(tmp_path, read, write, suffix):
    path, trace = tmp_path / f"file{suffix}", tmp_path / "trace"
    write(path, Payload(trace))
    with pytest.raises(InputError):
        read(path)
    assert not Path(trace).exists()
