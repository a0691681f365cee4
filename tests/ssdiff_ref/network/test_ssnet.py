"""The PyTorch reference reproduces the outputs of the authors' released code."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ssdiff_ref.network.apfm import APFM
from ssdiff_ref.network.checkpoint import (
    Checkpoint,
    load_checkpoint,
    released_name,
    save_checkpoint,
)
from ssdiff_ref.network.fmim import fmim_basis, fmim_fft, fmim_matmul
from ssdiff_ref.network.ssnet import FREQUENCY_SCALES, SSNet
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.options import SAMPLERS
from ssdiff_trt.runtime.schedule import make_schedule, sample
from tests.support.golden import golden_arrays, golden_state

TOLERANCE = 2e-5
FORMS = list(itertools.product(("fft", "matmul"), ("materialised", "fused")))


@pytest.fixture(scope="module", params=(4, 8), ids=lambda bands: f"{bands} bands")
def bands(request):
    return request.param


@pytest.fixture(scope="module")
def golden(bands):
    return {name: torch.from_numpy(np.asarray(a)) for name, a in golden_arrays(bands).items()}


@pytest.fixture(scope="module")
def checkpoint(bands, tmp_path_factory) -> Checkpoint:
    path = tmp_path_factory.mktemp("weights") / "released.pt"
    torch.save(golden_state(bands), path)
    return load_checkpoint(path)


def with_form(net: SSNet, fmim, attention) -> SSNet:
    copy = SSNet(net.bands, fmim, attention).eval()
    copy.load_state_dict(net.state_dict())
    return copy


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("fmim", "attention"), FORMS)
@torch.no_grad()
def test_forward_matches_released_code_in_every_form(checkpoint, golden, fmim, attention):
    net = with_form(checkpoint.net, fmim, attention)
    inputs = [golden[name] for name in ("x_T", "pan", "lms", "ms")]
    for t in (0, 7, 500, 999):
        assert_close(net(*inputs, torch.tensor([float(t)])), golden[f"forward_t{t}"])


@pytest.mark.parametrize("level", range(5))
def test_fmim_matches_released_code_in_both_forms(golden, level):
    y, expected = golden[f"fmim{level}_in"], golden[f"fmim{level}_out"]
    scale = FREQUENCY_SCALES[level]
    assert scale == pytest.approx(float(golden[f"fmim{level}_scale"]))
    assert_close(fmim_fft(y, scale), expected)
    assert_close(fmim_matmul(y, scale, fmim_basis(*y.shape[-2:])), expected)


def test_fmim_forms_agree_on_non_square_images():
    y = torch.randn(2, 3, 24, 40, dtype=torch.float64)
    basis = fmim_basis(24, 40).double()
    torch.testing.assert_close(fmim_matmul(y, 0.3, basis), fmim_fft(y, 0.3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["materialised", "fused"])
@torch.no_grad()
def test_apfm_matches_released_code(checkpoint, golden, attention):
    apfm = APFM(128, attention).eval()
    apfm.load_state_dict(checkpoint.net.fusions[2].apfm.state_dict())
    assert_close(apfm(golden["apfm2_x"], golden["apfm2_y"]), golden["apfm2_out"])


@pytest.mark.parametrize("sampler", SAMPLERS)
@torch.no_grad()
def test_trajectory_matches_released_code_at_every_step(checkpoint, golden, sampler):
    steps = []

    def denoise(x, t):
        return checkpoint.net(x, golden["pan"], golden["lms"], golden["ms"], torch.tensor([t]))

    schedule = make_schedule(golden["timestep_map"].tolist(), sampler)
    image = sample(
        denoise, golden["lms"], golden["x_T"], schedule, lambda x, image: steps.append(x)
    )
    compared = 0
    for number, x in enumerate(steps, start=1):
        if (name := f"{sampler}_x_after_step{number}") in golden:
            assert_close(x, golden[name])
            compared += 1
    assert compared == sum(name.startswith(f"{sampler}_x_after") for name in golden) >= 4
    assert_close(image, golden[f"{sampler}_image"])


@torch.no_grad()
def test_batch_items_are_independent_and_have_their_own_timestep(checkpoint):
    net, rng = checkpoint.net, torch.Generator().manual_seed(3)
    shapes = {"x_t": (net.bands, 32, 48), "pan": (1, 32, 48), "lms": (net.bands, 32, 48)}
    batch = [torch.rand(3, *shape, generator=rng) for shape in shapes.values()]
    batch.append(torch.rand(3, net.bands, 8, 12, generator=rng))
    t = torch.tensor([0.0, 421.0, 999.0])
    together = net(*batch, t)
    for i in range(3):
        alone = net(*(a[i : i + 1] for a in batch), t[i : i + 1])
        assert_close(together[i : i + 1], alone)


def test_checkpoint_reports_unused_tensors(checkpoint, bands):
    unused = sum(golden_state(bands)[name].numel() for name in checkpoint.unused)
    read = sum(parameter.numel() for parameter in checkpoint.net.parameters())
    assert unused == {4: 125_440, 8: 126_592}[bands]
    assert unused + read == {4: 1_413_940, 8: 1_426_616}[bands]


def test_saved_weights_are_loaded_unchanged(checkpoint, tmp_path):
    save_checkpoint(checkpoint.net, tmp_path / "w.safetensors")
    again = load_checkpoint(tmp_path / "w.safetensors")
    assert not again.unused
    for name, tensor in checkpoint.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], tensor)


def drop(state):
    del state["resblock1.conv0.weight"]


def add(state):
    state["resblock9.conv0.weight"] = torch.zeros(1)


def change_shape(state):
    state["time_embed.0.weight"] = torch.zeros(512, 64)


def insert_nan(state):
    state["to_hrms.0.bias"][3] = float("nan")


def wrong_model(state):
    state.clear()
    state["conv1.weight"] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, "lacks tensor resblock1.conv0.weight"),
        (add, "unknown tensor resblock9.conv0.weight"),
        (change_shape, r"time_embed.0.weight has shape \[512, 64\], expected \[512, 128\]"),
        (insert_nan, "to_hrms.0.bias has non-finite values"),
        (wrong_model, "has no tensor upsample.upsamle.0.weight, only conv1.weight; give an"),
    ],
)
def test_invalid_checkpoint_is_rejected_naming_the_tensor(tmp_path, damage, message):
    state = golden_state(4)
    damage(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(SSDiffError, match=message):
        load_checkpoint(tmp_path / "w.pt")


class Payload:
    def __reduce__(self):
        return (print, ("payload executed",))


def test_pickle_that_would_execute_code_is_rejected(tmp_path, capsys):
    torch.save({"upsample.upsamle.0.weight": Payload()}, tmp_path / "w.pt")
    with pytest.raises(SSDiffError, match=r"upsamle.0.weight of the state dict is of type print"):
        load_checkpoint(tmp_path / "w.pt")
    assert "payload executed" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_file_that_is_not_a_checkpoint_is_rejected(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    with pytest.raises(SSDiffError, match="no weights file"):
        load_checkpoint(path)
    path.write_bytes(b"II*\0 not a checkpoint")
    with pytest.raises(SSDiffError, match="cannot be read as weights"):
        load_checkpoint(path)


def test_released_names_are_unique():
    names = [n for n in SSNet(4).state_dict() if not n.endswith("num_batches_tracked")]
    assert len({released_name(name) for name in names}) == len(names)


def test_pytorch_takes_no_more_threads_than_the_process_may_use():
    """Of itself it counts the CPUs of the host."""
    program = (
        "import os, torch; torch.set_num_threads(64); os.sched_getaffinity = lambda _: {0, 1, 2}\n"
        "import ssdiff_ref.network; print(torch.get_num_threads())"
    )
    environment = {name: v for name, v in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert 1 <= int(done.stdout) <= 3, done.stderr
