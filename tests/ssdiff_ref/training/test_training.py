"""Training: what samples are made of, that a run goes on to the bit, and who gets gradients."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from rasterio.transform import from_origin
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint, save_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.filters import decimate, mtf_filter
from ssdiff_ref.training.config import Config, Source, Stage, read_config
from ssdiff_ref.training.imagery import Crops, Picture, make_scenes, pack, read_sources, unpack
from ssdiff_ref.training.pairs import SimulatedPairs
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


# The simulation


@pytest.mark.parametrize("gain", [0.2, 0.3, 0.6])
@pytest.mark.parametrize("step", [2, 4])
def test_kernels_have_their_gain_at_the_nyquist_frequency_of_the_decimated_grid(gain, step):
    reach = 5 + 3 * step
    kernel = kernels(torch.tensor([gain]), torch.zeros(1), step, reach)[0]
    wave = torch.cos(torch.pi / step * torch.arange(-reach, reach + 1))
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert float(kernel @ wave) == pytest.approx(gain, abs=0.02)


def test_kernels_shift_by_fractions_of_a_pixel():
    x = torch.arange(60.0)
    wave = torch.sin(0.4 * x)[None, None, None].expand(1, 1, 60, 60)
    none = kernels(torch.ones(1, 1), torch.zeros(1, 1), 1, 8)
    moved = kernels(torch.ones(1, 1), torch.full((1, 1), 0.3), 1, 8)
    shifted = sample_grid(wave, none, moved, 1)[0, 0, 20]
    assert torch.allclose(shifted, torch.sin(0.4 * (x[8:-8] + 0.3)), atol=5e-3)


def test_observed_pairs_are_those_of_the_protocol():
    truth = dead_leaves(1, 4, 64 + 2 * MARGIN + 80)
    sensor = SENSORS["ikonos"]
    ms = decimate(mtf_filter(truth.astype(np.float64), sensor))
    lms = interpolate(ms)
    first = 40  # whole pixels of ms, and far enough from the edges for the toolbox's filters
    crop = torch.from_numpy(
        truth[None, :, first : first + 64 + 2 * MARGIN, first:][..., : 64 + 2 * MARGIN]
    )
    gain = torch.tensor([sensor.mtf_ms])
    found_ms, found_lms = observe(crop, gain, (2.0, 2.0))
    at = first + MARGIN
    inside = np.s_[:, at : at + 64, at : at + 64]
    # The toolbox's kernels sum to 0.9988.
    assert found_lms[0].numpy() == pytest.approx(lms[inside], rel=0.02, abs=0.01)
    coarse = np.s_[:, at // 4 : at // 4 + 16, at // 4 : at // 4 + 16]
    assert found_ms[0].numpy() == pytest.approx(ms[coarse], rel=0.02, abs=0.01)


@pytest.mark.parametrize(("step", "bands"), [(1, 4), (2, 8), (3, 4)])
def test_samples_fit_each_other(step, bands):
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
    # PAN tells of the truth what lms does not.
    fine = truth.mean(1) - torch.nn.functional.avg_pool2d(truth.mean(1), 5, 1, 2)
    sharp = batch.pan[:, 0] - torch.nn.functional.avg_pool2d(batch.pan[:, 0], 5, 1, 2)
    related = torch.corrcoef(torch.stack((fine.flatten(), sharp.flatten())))[0, 1]
    assert float(related) > 0.6


def test_samples_vary_in_all_that_differs_between_sensors():
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


def test_crops_avoid_missing_data_and_held_out_places():
    pixels = np.full((2, 80, 200), 7, np.uint16)
    pixels[:, :, 150:] = 9
    pixels[:, 10:20, 30:40] = 0
    source = Source(name="a", files=("a.tif",), held_out=0.25)
    picture = Picture(pixels, source)
    for held_out, value in ((False, 7), (True, 9)):
        crops = Crops([picture.part(held_out)], Generator().manual_seed(0), CPU)
        drawn, pan, _ = crops.cut(0, 40, 64)
        assert pan is None
        assert (drawn == value).all()


def test_packed_imagery_is_what_it_was(tmp_path):
    source = Source(name="leaves", scenes=1, size=128, decimations=(1, 2), weight=2)
    pictures = make_scenes([source], 4, seed=1)
    pack(pictures, tmp_path / "packed.npz")
    (again,) = unpack(tmp_path / "packed.npz")
    assert again.source == source
    assert np.array_equal(again.pixels, pictures[0].pixels)


def test_rasters_of_several_grids_and_a_pan_become_one_picture(tmp_path):
    random = np.random.default_rng(0)
    coarse = random.integers(1, 1000, (8, 8)).astype(np.uint16)
    for name, values, size in (
        ("a.tif", coarse, 20.0),
        ("b.tif", np.kron(coarse, np.ones((2, 2), np.uint16)), 10.0),
        ("pan.tif", np.full((16, 16), 500, np.uint16), 10.0),
    ):
        with rasterio.open(
            tmp_path / name,
            "w",
            driver="GTiff",
            count=1,
            dtype="uint16",
            crs="EPSG:32631",
            height=len(values),
            width=len(values),
            transform=from_origin(0, 160, size, size),
        ) as file:
            file.write(values, 1)
    source = Source(name="s", files=("a.tif", "b.tif"), stack=True, pan="pan.tif")
    (picture,) = read_sources([source], tmp_path)
    assert picture.with_pan
    assert picture.pixels.shape == (3, 8, 8)
    assert np.array_equal(picture.pixels[0], coarse)
    assert np.corrcoef(picture.pixels[1].ravel(), coarse.ravel())[0, 1] > 0.95
    assert (picture.pixels[2] == 500).all()


def test_imagery_too_small_is_told():
    picture = Picture(np.ones((4, 50, 50), np.uint8), Source(name="a", files=("a.tif",)))
    pairs = SimulatedPairs([picture], 4, Generator(), CPU)
    with pytest.raises(SSDiffError, match=r"No source has 1\d\d x 1\d\d pixels"):
        pairs.draw(32, 1)


# Runs


def test_a_run_leaves_weights_curves_and_a_record(recipe, tmp_path):
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


def test_a_run_that_was_stopped_goes_on_to_the_bit(recipe, tmp_path, monkeypatch):
    train(recipe, tmp_path / "whole")

    class KilledError(Exception):
        pass

    from ssdiff_ref.training.trainer import Trainer

    step = Trainer.step

    def dying(self):
        if self.iteration == 5:
            raise KilledError
        return step(self)

    monkeypatch.setattr(Trainer, "step", dying)
    with pytest.raises(KilledError):
        train(recipe, tmp_path / "parts")
    monkeypatch.setattr(Trainer, "step", step)
    assert train(recipe, tmp_path / "parts").iteration == 6
    for name in ("last.safetensors", "best.safetensors"):
        whole, parts = (tensors(tmp_path / run / name) for run in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    whole, parts = ((tmp_path / run / "validation.csv").read_text() for run in ("whole", "parts"))
    assert whole == parts


def test_another_configuration_does_not_go_on_with_a_run(recipe, tmp_path):
    train(recipe, tmp_path / "run")
    recipe.write_text(RECIPE.replace("seed = 3", "seed = 4"))
    with pytest.raises(SSDiffError, match=r"holds a run with another seed"):
        train(recipe, tmp_path / "run")


def test_training_from_packed_imagery_is_the_same(recipe, tmp_path):
    packed = pack_imagery(recipe, tmp_path / "packed.npz")
    train(recipe, tmp_path / "a")
    train(recipe, tmp_path / "b", packed=packed)
    a, b = (tensors(tmp_path / run / "last.safetensors") for run in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_training_learns(tmp_path):
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


def test_pancollection_files_train(tmp_path):
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


def test_another_number_of_bands_in_a_pancollection_file_is_told(tmp_path):
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
def test_mistakes_in_a_configuration_are_told(tmp_path, change, message):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace(*change))
    with pytest.raises(SSDiffError, match=message):
        train(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_recipes_that_come_along_are_valid():
    folder = Path(__file__).parents[3] / "ssdiff_ref" / "recipes"
    assert {read_config(path).bands for path in folder.glob("*.toml")} == {4, 8}


def test_stages_follow_each_other():
    config = Config(bands=4, stages=(Stage(iterations=2, patch=32), Stage(iterations=1, patch=64)))
    assert [config.stage_at(n).patch for n in range(3)] == [32, 32, 64]


# L-BAF


def gradients(branch: str) -> set[str]:
    torch.manual_seed(0)
    net = SSNet(4)
    for parameter in net.parameters():  # nothing may be zero by chance of initialisation
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


def test_who_gets_gradients_in_each_phase():
    everything = gradients("both")
    net = SSNet(4)
    # The last spatial block's output goes on to the fusion; all weights learn otherwise.
    assert everything == {name for name, _ in net.named_parameters()}
    spectral, spatial = gradients("spectral"), gradients("spatial")
    # Spectral phase: the spatial branch stands still, all else learns; Down and Up, which both
    # branches share, by what passes through the spectral one.
    assert everything - spectral == of_modules(everything, "stem_spatial.", "spatial.")
    # Spatial phase: what makes the values and the affinity of the spectral features stands still.
    frozen = {name for name in everything if ".se1." in name or ".se2." in name}
    assert len(frozen) == 10
    assert everything - spatial == frozen


def test_phases_change_no_output():
    torch.manual_seed(0)
    net = SSNet(4).eval()
    x = torch.randn(1, 4, 32, 32)
    outputs = []
    for branch in ("both", "spectral", "spatial"):
        net.select_trained_branch(branch)
        outputs.append(net(x, x[:, :1], x, x[..., ::4, ::4], torch.tensor([5.0])))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_finetuning_alternates(recipe, tmp_path, monkeypatch):
    net = SSNet(4)
    save_checkpoint(net, tmp_path / "start.safetensors")
    phases = []
    monkeypatch.setattr(SSNet, "select_trained_branch", lambda self, branch: phases.append(branch))
    trainer = finetune(
        recipe, tmp_path / "run", weights=tmp_path / "start.safetensors", period=2, iterations=6
    )
    assert phases == ["spectral"] * 2 + ["spatial"] * 2 + ["spectral"] * 2
    assert trainer.config.learning_rate == 1e-4


# Bands


def test_widened_weights_do_for_repeated_bands_what_they_did():
    torch.manual_seed(0)
    net = SSNet(4).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    wide = widen(net, 8)
    part = [0, 0, 1, 1, 2, 2, 3, 3]
    x, pan, lms = torch.randn(1, 4, 32, 32), torch.rand(1, 1, 32, 32), torch.rand(1, 4, 32, 32)
    ms, t = torch.rand(1, 4, 8, 8), torch.tensor([500.0])
    few = net(x, pan, lms, ms, t)
    many = wide(x[:, part], pan, lms[:, part], ms[:, part], t)
    assert torch.allclose(many, few[:, part], atol=1e-5)


# The command line


def test_commands_tell_mistakes(tmp_path):
    result = CliRunner().invoke(
        cli, ["train", str(tmp_path / "no.toml"), "-o", str(tmp_path / "r")]
    )
    assert isinstance(result.exception, SSDiffError)
    assert "There is no training configuration" in str(result.exception)


def test_a_device_that_is_not_there_is_told(recipe, tmp_path):
    with pytest.raises(SSDiffError, match=r"The device nonsense cannot be used"):
        train(recipe, tmp_path / "run", device="nonsense", progress=Progress())


def test_a_picture_without_a_valid_pixel_gives_no_crop():
    picture = Picture(np.zeros((4, 64, 64), np.uint16), Source(name="sea", files=("sea.tif",)))
    crops = Crops([picture], Generator(), CPU)
    assert not list(crops.choices(lambda step: 32))


def test_a_known_response_decides_what_pan_is_made_of():
    """Of white noise in every band, PAN has what its response says, give or take."""
    generator = Generator().manual_seed(5)
    shares = (0.01, 0.5, 0.48, 0.01)
    crops = torch.rand(64, 4, crop_size(16, 1), crop_size(16, 1), generator=generator) + 0.5
    found = {}
    for response in (None, shares):
        synthesizer = Synthesizer(4, generator, CPU, response)
        weights = torch.cat([synthesizer._pan_weights(64, 4)[:, 0, :4] for _ in range(8)])
        found[response] = weights.mean(0)
        batch = synthesizer.draw(crops, torch.ones(4), 1, spectral=True)
        assert batch.pan.shape == (64, 1, 16, 16)
    assert found[shares].tolist() == pytest.approx(shares, abs=0.06)
    assert found[None].tolist() == pytest.approx([0.23] * 4, abs=0.04)


def test_a_response_is_one_number_for_each_band(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("bands = 4\npan_response = [0.5, 0.5]\n[[stages]]\niterations = 1\n")
    with pytest.raises(SSDiffError, match="pan_response has 2 values, not 4"):
        read_config(path)
