"""Checkpoints as people have them: prefixes, wrappers, other suffixes, and files that are none."""

from __future__ import annotations

import argparse
import io
import re
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.runtime.errors import SSDiffError
from tests.support.golden import golden_state
from tests.support.progress import RecordingProgress

STATE = golden_state(4)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in STATE.items()}


def saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def archive(*members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in members:
            file.writestr(name, b"x")
    return buffer.getvalue()


TWO = {"model": STATE, "ema": {name: 2 * tensor for name, tensor in prefixed("module.").items()}}
LUCIDRAINS = {
    **prefixed("online_model."),
    **prefixed("ema_model."),
    "initted": torch.tensor(True),
    "step": torch.tensor(5),
}
FULL = {
    "epoch": 3,
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}},
    "args": argparse.Namespace(rate=1e-3),
    "best": np.float64(2.5),
    "criterion": torch.nn.L1Loss(),
    "state_dict": prefixed("model."),
}


@pytest.mark.parametrize(
    ("content", "given", "key", "beside"),
    [
        (STATE, None, "", 0),
        (prefixed("module._orig_mod."), None, "module._orig_mod", 0),
        ({**prefixed("module."), "n_averaged": torch.tensor(9)}, None, "module", 1),
        (FULL, None, "state_dict.model", 0),
        ({"ema": {"params": STATE}, "step": 4}, None, "ema.params", 0),
        ({"model": STATE, "state_dict": STATE}, None, "model", 0),
        (TWO, "ema", "ema.module", 0),
        (TWO, "model", "model", 0),
        (LUCIDRAINS, "ema_model", "ema_model", len(STATE) + 2),
        (STATE, "", "", 0),
        (STATE | {"to_hrms.0.bias": STATE["to_hrms.0.bias"].to_sparse()}, None, "", 0),
    ],
    ids=range(11),
)
def test_the_weights_are_found_and_the_user_is_told(tmp_path, content, given, key, beside):
    path = tmp_path / "w.pt"
    path.write_bytes(saved(content))
    checkpoint = load_checkpoint(path, given)
    assert (checkpoint.key, len(checkpoint.unused)) == (key, 26 + beside)
    progress = RecordingProgress()
    checkpoint.describe(progress)
    assert (f"{path}: the weights are those under {key}" in progress.notes) == bool(key)
    factor = 2 if key == "ema.module" else 1
    torch.testing.assert_close(
        checkpoint.net.state_dict()["head.0.bias"], factor * STATE["to_hrms.0.bias"]
    )


NOT_FLOAT = STATE | {"to_hrms.0.bias": torch.ones(32, dtype=torch.int8)}


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (TWO, None, "several places, model and ema.module; choose one .* `weights_key=model`"),
        (TWO, "emo", "no weights under emo, expected model and ema.module; change `weights_key`"),
        (LUCIDRAINS, None, "several places, online_model and ema_model; choose"),
        (STATE, "ema", "no weights under ema, expected the top level; .* or omit it"),
        ({"epoch": 3}, "ema", r"no weights under ema, expected a key of it \(epoch \(int\)\)"),
        (STATE | {"epoch": 3}, None, "entry epoch of the state dict is of type int, expected"),
        (NOT_FLOAT, None, "tensor to_hrms.0.bias is in int8, expected floating point"),
        (
            {"decay": 0.9, "shadow_params": list(STATE.values())},
            None,
            r"no tensor \S+, only decay \(float\), shadow_params \(list\); give an SSDiff",
        ),
        (SSNet(4), None, "only an object of type SSNet; give .* state dict of a model"),
        ({}, None, "only an empty dictionary; give"),
    ],
    ids=range(10),
)
def test_content_that_is_no_single_state_dict_is_refused(tmp_path, content, key, message):
    (tmp_path / "w.pt").write_bytes(saved(content))
    with pytest.raises(SSDiffError, match=message):
        load_checkpoint(tmp_path / "w.pt", key)


PYTORCH, SAFETENSORS = saved(STATE), save(STATE)
OLD = saved(STATE, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("content", [PYTORCH, SAFETENSORS, OLD], ids=["new", "safe", "old"])
@pytest.mark.parametrize("name", ["w", "w.bin", "w.PT", "w.safetensors"])
def test_the_suffix_of_a_weights_file_does_not_matter(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    assert load_checkpoint(tmp_path / name).net.bands == 4


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
INCOMPLETE = "cannot be read as weights: it is (damaged or|an) incomplete"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (LFS, "is a Git LFS pointer, .*; fetch that with git lfs pull"),
        (b"\n <!DOCTYPE HTML><html>", "is a web page, not the file itself; fetch the file"),
        (b"<?xml version='1.0'?><Error/>", "is a web page"),
        (PYTORCH[:900], INCOMPLETE),
        (PYTORCH[:-1], INCOMPLETE),
        (OLD[:20], INCOMPLETE),
        (OLD[:90_000], INCOMPLETE),
        (SAFETENSORS[:30], INCOMPLETE),
        (SAFETENSORS[:-1], INCOMPLETE),
        (b"\xff" * 8 + b"{", INCOMPLETE),
        (b"\x80\x02]q\x00.", INCOMPLETE),
        (archive("a/constants.pkl", "a/data.pkl"), "is a TorchScript program; save the state"),
        (archive("a.npy"), "is a ZIP archive, not a PyTorch file"),
        (archive("a/data.pkl", "a/version"), "cannot be read as weights: it is damaged"),
        (
            saved(FULL, pickle_protocol=4),
            "cannot .* damaged, or .* an object whose loading could execute",
        ),
        (
            b"\x89HDF",
            "cannot be read as weights: it begins neither like .safetensors nor like",
        ),
    ],
    ids=range(17),
)
@pytest.mark.parametrize("suffix", ["", ".safetensors", ".pt"])
def test_a_file_of_another_kind_is_known_by_its_first_bytes(tmp_path, content, message, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(SSDiffError, match=f"^{re.escape(str(path))} {message}") as caught:
        load_checkpoint(path)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [PYTORCH, SAFETENSORS, OLD], ids=["new", "safe", "old"])
def test_damage_anywhere_raises_no_error_of_another_kind(tmp_path, content):
    random = np.random.default_rng(0)
    path = tmp_path / "w"
    for _ in range(20):
        damaged = bytearray(content)
        for place in random.integers(0, 3000, 3):
            damaged[place] ^= random.integers(1, 256)
        path.write_bytes(damaged)
        with suppress(SSDiffError):  # or it is read; nothing else is raised
            load_checkpoint(path)
