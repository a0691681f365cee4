"""Training: simulated samples, imagery, bit-exact resumption, L-BAF and widening."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint, save_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.filters import decimate, mtf_filter
from ssdiff_ref.training.config import Config, Stage, read_config
from ssdiff_ref.training.procedural import dead_leaves
from ssdiff_ref.training.run import finetune, pack_imagery, train
from ssdiff_ref.training.synthesis import (
    MARGIN,
    Synthesizer,
    crop_size,
    kernels,
    observe,
    sample_grid,
)
from ssdiff_ref.training.widening import widen
from ssdiff_trt.cli.ref import cli
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sensors import SENSORS

CPU = torch.device("cpu")
RECIPE = """
bands = 4
seed = 3
learning_rate = 1e-3
warmup = 2
ema = 0.9
validate_every = 3
save_every = 100
validation_patches = 2
[[stages]]
iterations = 4
patch = 16
batch = 2
[[stages]]
iterations = 2
patch = 32
batch = 1
[[sources]]
name = "leaves"
scenes = 2
size = 448
held_out = 0.5
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).net.state_dict()


# Simulation


@pytest.mark.parametrize("gain", [0.2, 0.3, 0.6])
@pytest.mark.parametrize("step", [2, 4])
def test_kernel_response_at_the_nyquist_frequency_is_the_gain(gain, step):
    reach = 5 + 3 * step
    kernel = kernels(torch.tensor([gain]), torch.zeros(1), step, reach)[0]
    wave = torch.cos(torch.pi / step * torch.arange(-reach, reach + 1))
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert float(kernel @ wave) == pytest.approx(gain, abs=0.02)


def test_kernels_shift_by_fractions_of_a_pixel():
    x = torch.arange(60.0)
    wave = torch.sin(0.4 * x)[None, None, None].expand(1, 1, 60, 60)
    unshifted = kernels(torch.ones(1, 1), torch.zeros(1, 1), 1, 8)
    moved = kernels(torch.ones(1, 1), torch.full((1, 1), 0.3), 1, 8)
    shifted = sample_grid(wave, unshifted, moved, 1)[0, 0, 20]
    assert torch.allclose(shifted, torch.sin(0.4 * (x[8:-8] + 0.3)), atol=5e-3)


def test_observed_pairs_match_the_protocol():
    truth = dead_leaves(1, 4, 64 + 2 * MARGIN + 80)
    sensor = SENSORS["ikonos"]
    ms = decimate(mtf_filter(truth.astype(np.float64), sensor))
    lms = interpolate(ms)
    first = 40  # a multiple of 4, beyond the reach of the toolbox's filters from the edge
    crop = torch.from_numpy(
        truth[None, :, first : first + 64 + 2 * MARGIN, first:][..., : 64 + 2 * MARGIN]
    )
    gain = torch.tensor([sensor.mtf_ms])
    observed_ms, observed_lms = observe(crop, gain, (2.0, 2.0))
    at = first + MARGIN
    inside = np.s_[:, at : at + 64, at : at + 64]
    # The toolbox's kernels sum to 0.9988.
    assert observed_lms[0].numpy() == pytest.approx(lms[inside], rel=0.02, abs=0.01)
    coarse = np.s_[:, at // 4 : at // 4 + 16, at // 4 : at // 4 + 16]
    assert observed_ms[0].numpy() == pytest.approx(ms[coarse], rel=0.02, abs=0.01)


@pytest.mark.parametrize(("step", "bands"), [(1, 4), (2, 8), (3, 4)])
def test_samples_have_consistent_shapes_and_values(step, bands):
    generator = Generator().manual_seed(1)
    synthesizer = Synthesizer(bands, generator, CPU)
    scene = torch.from_numpy(dead_leaves(2, 6, crop_size(32, step)))
    batch = synthesizer.draw(
        scene[None].repeat(6, 1, 1, 1), scene.mean((1, 2)), step, spectral=True
    )
    assert batch.pan.shape == (6, 1, 32, 32)
    assert batch.lms.shape == batch.residual.shape == (6, bands, 32, 32)
    assert batch.ms.shape == (6, bands, 8, 8)
    truth = batch.lms + batch.residual
    assert float(truth.min()) > -1e-6
    assert float(truth.max()) < 1 + 1e-6
    # The high frequencies of PAN correlate with those of the ground truth.
    truth_detail = truth.mean(1) - torch.nn.functional.avg_pool2d(truth.mean(1), 5, 1, 2)
    pan_detail = batch.pan[:, 0] - torch.nn.functional.avg_pool2d(batch.pan[:, 0], 5, 1, 2)
    correlation = torch.corrcoef(torch.stack((truth_detail.flatten(), pan_detail.flatten())))[0, 1]
    assert float(correlation) > 0.6


def test_samples_vary_in_brightness_pan_ratio_and_colour():
    generator = Generator().manual_seed(1)
    synthesizer = Synthesizer(4, generator, CPU)
    scene = torch.from_numpy(dead_leaves(2, 4, crop_size(32, 2)))
    batch = synthesizer.draw(scene[None].repeat(32, 1, 1, 1), scene.mean((1, 2)), 2, spectral=True)
    level = batch.lms.mean((1, 2, 3))
    assert float(level.max() / level.min()) > 4
    ratio = batch.pan.mean((1, 2, 3)) / level
    assert float(ratio.std()) > 0.1
    colour = batch.lms.mean((2, 3)) / level[:, None]
    assert float(colour.std(0).min()) > 0.1


# Imagery


# Runs


def test_run_writes_weights_curves_and_scores(recipe, tmp_path):
    trainer = train(recipe, tmp_path / "run")
    run = tmp_path / "run"
    assert trainer.iteration == 6
    assert {path.name for path in run.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "state.pt",
        "validation.csv",
    } | ({"losses.csv", "curves.png"} if (run / "losses.csv").exists() else set())
    with (run / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == [3, 6]
    assert float(rows[-1]["ergas"]) > 0
    averaged = load_checkpoint(run / "last.safetensors").net
    assert all(tensor.isfinite().all() for tensor in averaged.state_dict().values())


def test_interrupted_run_resumes_bit_exactly(recipe, tmp_path, monkeypatch):
    train(recipe, tmp_path / "uninterrupted")

    class InterruptedRunError(Exception):
        pass

    from ssdiff_ref.training.trainer import Trainer

    step = Trainer.step

    def interrupted_step(self):
        if self.iteration == 5:
            raise InterruptedRunError
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted_step)
    with pytest.raises(InterruptedRunError):
        train(recipe, tmp_path / "resumed")
    monkeypatch.setattr(Trainer, "step", step)
    assert train(recipe, tmp_path / "resumed").iteration == 6
    runs = ("uninterrupted", "resumed")
    for name in ("last.safetensors", "best.safetensors"):
        expected, resumed = (tensors(tmp_path / run / name) for run in runs)
        assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    expected, resumed = ((tmp_path / run / "validation.csv").read_text() for run in runs)
    assert expected == resumed


def test_run_is_not_resumed_with_another_configuration(recipe, tmp_path):
    train(recipe, tmp_path / "run")
    recipe.write_text(RECIPE.replace("seed = 3", "seed = 4"))
    with pytest.raises(SSDiffError, match=r"contains a run with another seed"):
        train(recipe, tmp_path / "run")


def test_training_from_packed_imagery_gives_the_same_weights(recipe, tmp_path):
    packed = pack_imagery(recipe, tmp_path / "packed.npz")
    train(recipe, tmp_path / "a")
    train(recipe, tmp_path / "b", packed=packed)
    a, b = (tensors(tmp_path / run / "last.safetensors") for run in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_training_improves_on_random_weights(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        RECIPE.replace("iterations = 4\n", "iterations = 60\n").replace(
            "validate_every = 3", "validate_every = 31"
        )
    )
    trainer = train(recipe, tmp_path / "run")
    validation = trainer._validation
    untrained = validation(SSNet(4))
    assert trainer.best is not None
    assert trainer.best.ergas < 0.8 * untrained.ergas


def test_pancollection_files_are_accepted(tmp_path):
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for role, shape in (
            ("gt", (8, 4, 64, 64)),
            ("lms", (8, 4, 64, 64)),
            ("ms", (8, 4, 16, 16)),
            ("pan", (8, 1, 64, 64)),
        ):
            file[role] = random.uniform(0, 2047, shape).astype(np.float32)
    recipe = tmp_path / "recipe.toml"
    start = RECIPE.index("[[sources]]")
    recipe.write_text(
        RECIPE[:start] + '[[sources]]\nname = "p"\nfiles = ["train.h5"]\nheld_out = 0.25\n'
    )
    assert train(recipe, tmp_path / "run", data=tmp_path).iteration == 6


def test_pancollection_file_with_another_number_of_bands_is_rejected(tmp_path):
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for role, size in (("gt", 64), ("lms", 64), ("ms", 16), ("pan", 64)):
            file[role] = np.ones((2, 1 if role == "pan" else 8, size, size), np.float32)
    recipe = tmp_path / "recipe.toml"
    start = RECIPE.index("[[sources]]")
    recipe.write_text(RECIPE[:start] + '[[sources]]\nname = "p"\nfiles = ["*.h5"]\n')
    with pytest.raises(SSDiffError, match=r"train.h5 gives 8 bands, expected 4"):
        train(recipe, tmp_path / "run", data=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("bands = 4", "bands = 0"), r"In .*recipe.toml, bands: .*greater than or equal to 1"),
        (("bands = 4", "band = 4"), r"In .*recipe.toml, bands: Field required"),
        (("bands = 4", "bands = "), r"cannot be read as TOML"),
        (("scenes = 2", 'files = ["no.tif"]'), r"No file no.tif was found"),
        (("scenes = 2", ""), r"either files or a number of procedural scenes"),
    ],
)
def test_invalid_configuration_is_rejected(tmp_path, change, message):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace(*change))
    with pytest.raises(SSDiffError, match=message):
        train(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_shipped_recipes_are_valid():
    folder = Path(__file__).parents[3] / "ssdiff_ref" / "recipes"
    assert {read_config(path).bands for path in folder.glob("*.toml")} == {4, 8}


def test_stage_at_returns_stages_in_order():
    config = Config(bands=4, stages=(Stage(iterations=2, patch=32), Stage(iterations=1, patch=64)))
    assert [config.stage_at(n).patch for n in range(3)] == [32, 32, 64]


# L-BAF


def gradients(branch: str) -> set[str]:
    torch.manual_seed(0)
    net = SSNet(4)
    for parameter in net.parameters():  # zero-initialised layers would block gradients
        torch.nn.init.normal_(parameter, std=0.1)
    net.select_trained_branch(branch)
    x = torch.randn(2, 4, 32, 32)
    out = net(x, x[:, :1], x, x[..., ::4, ::4], torch.tensor([5.0, 900.0]))
    out.square().mean().backward()
    return {
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }


def of_modules(names: set[str], *modules: str) -> set[str]:
    return {name for name in names if name.startswith(modules)}


def test_parameters_with_gradients_in_each_phase():
    everything = gradients("both")
    net = SSNet(4)
    # With both branches trained, every parameter gets a gradient.
    assert everything == {name for name, _ in net.named_parameters()}
    spectral, spatial = gradients("spectral"), gradients("spatial")
    # Spectral phase: all but the spatial branch is trained. Down and Up, which both branches share,
    # get gradients through the spectral branch.
    assert everything - spectral == of_modules(everything, "stem_spatial.", "spatial.")
    # Spatial phase: the projections of the spectral features are not trained.
    frozen = {name for name in everything if ".se1." in name or ".se2." in name}
    assert len(frozen) == 10
    assert everything - spatial == frozen


def test_phases_do_not_change_the_output():
    torch.manual_seed(0)
    net = SSNet(4).eval()
    x = torch.randn(1, 4, 32, 32)
    outputs = []
    for branch in ("both", "spectral", "spatial"):
        net.select_trained_branch(branch)
        outputs.append(net(x, x[:, :1], x, x[..., ::4, ::4], torch.tensor([5.0])))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_finetuning_alternates_between_branches(recipe, tmp_path, monkeypatch):
    net = SSNet(4)
    save_checkpoint(net, tmp_path / "start.safetensors")
    phases = []
    monkeypatch.setattr(SSNet, "select_trained_branch", lambda self, branch: phases.append(branch))
    trainer = finetune(
        recipe, tmp_path / "run", weights=tmp_path / "start.safetensors", period=2, iterations=6
    )
    assert phases == ["spectral"] * 2 + ["spatial"] * 2 + ["spectral"] * 2
    assert trainer.config.learning_rate == 1e-4


# Widening


def test_widened_network_gives_the_same_output_for_repeated_bands():
    torch.manual_seed(0)
    net = SSNet(4).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    wide = widen(net, 8)
    source_band = [0, 0, 1, 1, 2, 2, 3, 3]
    x, pan, lms = torch.randn(1, 4, 32, 32), torch.rand(1, 1, 32, 32), torch.rand(1, 4, 32, 32)
    ms, t = torch.rand(1, 4, 8, 8), torch.tensor([500.0])
    narrow_output = net(x, pan, lms, ms, t)
    wide_output = wide(x[:, source_band], pan, lms[:, source_band], ms[:, source_band], t)
    assert torch.allclose(wide_output, narrow_output[:, source_band], atol=1e-5)


# Error messages


def test_command_reports_a_missing_configuration(tmp_path):
    result = CliRunner().invoke(
        cli, ["train", str(tmp_path / "no.toml"), "-o", str(tmp_path / "r")]
    )
    assert isinstance(result.exception, SSDiffError)
    assert "There is no training configuration" in str(result.exception)


def test_unavailable_device_is_rejected(recipe, tmp_path):
    with pytest.raises(SSDiffError, match=r"The device nonsense cannot be used"):
        train(recipe, tmp_path / "run", device="nonsense", progress=Progress())


def test_pan_weights_follow_the_given_response():
    """The mean weights of the bands in PAN are those of the response, or uniform without one."""
    generator = Generator().manual_seed(5)
    shares = (0.01, 0.5, 0.48, 0.01)
    crops = torch.rand(64, 4, crop_size(16, 1), crop_size(16, 1), generator=generator) + 0.5
    mean_weights = {}
    for response in (None, shares):
        synthesizer = Synthesizer(4, generator, CPU, response)
        weights = torch.cat([synthesizer._pan_weights(64, 4)[:, 0, :4] for _ in range(8)])
        mean_weights[response] = weights.mean(0)
        batch = synthesizer.draw(crops, torch.ones(4), 1, spectral=True)
        assert batch.pan.shape == (64, 1, 16, 16)
    assert mean_weights[shares].tolist() == pytest.approx(shares, abs=0.06)
    assert mean_weights[None].tolist() == pytest.approx([0.23] * 4, abs=0.04)


def test_response_needs_one_value_per_band(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("bands = 4\npan_response = [0.5, 0.5]\n[[stages]]\niterations = 1\n")
    with pytest.raises(SSDiffError, match="pan_response has 2 values, expected 4"):
        read_config(path)
