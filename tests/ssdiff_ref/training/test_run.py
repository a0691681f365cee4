"""Runs that begin with others' weights, are resumed from damaged files, or are refused."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint, released_tensors
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.training.config import Config, Stage, read_config
from ssdiff_ref.training.run import finetune, train
from ssdiff_ref.training.trainer import LOSSES, STATE, VALIDATION, Trainer
from ssdiff_ref.training.validation import Scores
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.progress import Lines
from tests.support.progress import RecordingProgress

RECIPE = """
bands = 4
validation_patches = 1
[[stages]]
iterations = 1000
patch = 16
batch = 1
[[sources]]
name = "leaves"
scenes = 1
size = 448
held_out = 0.5
"""
CONFIG = Config(bands=4, stages=(Stage(iterations=9, patch=16, batch=1),))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def trainer(tmp_path):
    """Makes a trainer in a folder, which draws no pairs."""

    def make(config=CONFIG):
        device = torch.device("cpu")
        return Trainer(config, SSNet(4), None, None, Generator(), device, tmp_path)

    return make


@pytest.mark.parametrize("minutes", [0, -1, math.nan, math.inf, "x"])
def test_a_time_that_does_not_work_is_refused_before_anything_is_written(recipe, tmp_path, minutes):
    for call, options in ((train, {}), (finetune, {"weights": "generic4"})):
        with pytest.raises(InputError, match="does not work; give a number above 0") as refused:
            call(recipe, tmp_path / "run", minutes=minutes, **options)
        assert refused.value.parameter == "minutes"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("learning_rate", (math.nan, math.inf, 0, -1)),
        ("period", (0, 1.5)),
        ("iterations", (0, True)),
    ],
)
def test_settings_of_finetuning_that_do_not_work_are_refused(recipe, tmp_path, parameter, values):
    for value in values:
        with pytest.raises(InputError, match="does not work; give a") as refused:
            finetune(recipe, tmp_path / "run", weights="generic4", **{parameter: value})
        assert refused.value.parameter == parameter


@pytest.mark.parametrize("line", ["learning_rate = nan", "weight_decay = inf", "seed = -1"])
def test_numbers_of_a_configuration_that_do_not_work_are_refused(recipe, line):
    recipe.write_text(f"{line}\n{RECIPE}")
    with pytest.raises(InputError, match=f"recipe.toml, {line.split()[0]}: Input should be"):
        read_config(recipe)


def test_a_source_may_have_nan_for_no_data(recipe):
    recipe.write_text(RECIPE + "nodata = nan\n")
    assert math.isnan(read_config(recipe).sources[0].nodata)


def test_a_slice_under_a_second_is_trained_and_shown(recipe, tmp_path, capsys):
    trainer = train(recipe, tmp_path / "run", minutes=0.2 / 60, progress=Lines())
    assert "stopped at iteration" in capsys.readouterr().err
    assert trainer.iteration < 1000


def test_finetuning_starts_from_a_shipped_bundle_by_name(recipe, tmp_path):
    options = {"iterations": np.int64(1), "learning_rate": np.float64(1e-9), "minutes": 1}
    for _ in range(2):  # trained, then resumed
        trainer = finetune(recipe, tmp_path / "run", weights="generic4", **options)
    assert (trainer.iteration, trainer.config.start) == (1, "generic4")
    weights = dict(load_checkpoint("generic4").net.named_parameters())
    for name, tensor in trainer.average.named_parameters():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-6)


def test_weights_beside_others_are_chosen_by_key_and_told(recipe, tmp_path):
    tensors = released_tensors(SSNet(4))
    torch.save({"model": tensors, "ema": dict(tensors)}, tmp_path / "w.ckpt")
    options = {"weights": tmp_path / "w.ckpt", "iterations": 1, "minutes": 1e-9}
    with pytest.raises(InputError, match="several places, model and ema"):
        finetune(recipe, tmp_path / "run", **options)
    progress = RecordingProgress()
    finetune(recipe, tmp_path / "run", weights_key="ema", progress=progress, **options)
    assert f"{tmp_path / 'w.ckpt'}: the weights are those under ema" in progress.notes


HEADER, SCORES_HEADER = "iteration,loss,learning_rate,samples_per_s", "iteration,ergas,sam,q2n"
ROWS = ["2,0.5,0.1,9", "4,0.4,0.1,9"]


@pytest.mark.parametrize(
    ("damaged", "repaired"),
    [
        ("", None),
        (f"{HEADER}\n", None),
        (f"{HEADER}\n{ROWS[0]}\n{ROWS[1]}\n6,0.3,0.1,9\n", ROWS),
        (f"{HEADER}\n{ROWS[0]}\n4,0.4,0.1", ROWS[:1]),
        (f"{HEADER}\n{ROWS[0]}\n4,0.4\n", ROWS[:1]),
        (f"{ROWS[0]}\n{ROWS[1]}\n", ROWS),
        (f"iter{ROWS[0]}\n\0\n\n{ROWS[1]}\n", ROWS[1:]),
        ("\0\xff\n,,,\n", None),
    ],
)
@pytest.mark.parametrize(("name", "header"), [(LOSSES, HEADER), (VALIDATION, SCORES_HEADER)])
def test_tables_are_repaired_when_a_run_is_resumed(
    trainer, tmp_path, damaged, repaired, name, header
):
    first = trainer()
    first.iteration, first.best = 5, Scores(1.0, 2.0, 0.5)
    first.save()
    (tmp_path / name).write_bytes(damaged.encode("latin-1"))
    resumed = trainer()
    assert (resumed.iteration, resumed.best) == (5, first.best)
    if repaired is None:
        assert not (tmp_path / name).exists()
    else:
        assert (tmp_path / name).read_text().splitlines() == [header, *repaired]


def test_a_run_without_its_state_begins_anew(trainer, tmp_path):
    (tmp_path / LOSSES).write_text(f"{HEADER}\n{ROWS[0]}\n")
    assert trainer().iteration == 0
    assert not (tmp_path / LOSSES).exists()


def test_a_table_of_something_else_is_not_removed(trainer, tmp_path):
    (tmp_path / LOSSES).write_text("date,loss\nMonday,3\n")
    with pytest.raises(InputError, match=r"losses.csv is not of a training run; give another"):
        trainer()
    assert (tmp_path / LOSSES).exists()


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        saved(released_tensors(SSNet(4))),
        saved([1]),
        saved({"config": CONFIG.model_dump(), "iteration": 3}),
        saved({"config": None}),
        saved({"config": CONFIG.model_dump()})[:500],
    ],
    ids=range(7),
)
def test_a_damaged_state_gives_one_sentence(trainer, tmp_path, content):
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(
        InputError, match=r"state.pt cannot be resumed, .*; delete it to start anew"
    ):
        trainer()


def test_a_large_seed_gives_random_numbers(trainer, monkeypatch):
    made = trainer(CONFIG.model_copy(update={"seed": 2**64 - 1}))
    monkeypatch.setattr(made, "_loss", lambda batch: sum(p.sum() for p in made.net.parameters()))
    monkeypatch.setattr(made, "_pairs", type("", (), {"draw": lambda *size: None})())
    made.step()
    assert made.iteration == 1
