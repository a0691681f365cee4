"""Commands that adapt: which scenes, and before a run."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

import ssdiff_trt.export.adaptation
from ssdiff_trt.cli.ref import cli
from ssdiff_trt.cli.trt import cli as trt
from ssdiff_trt.runtime.bundle.store import bundle_for
from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.scenes import SceneEntry


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "PAN and MS, or --scenes, are needed"),
        (["pan.tif"], "PAN and MS, or --scenes, are needed"),
        (["pan.tif", "ms.tif", "--scenes", "s.csv"], "PAN and MS, or --scenes, are needed"),
        (["--scenes", "s.csv", "--also", "p.tif", "m.tif"], "into the table"),
        (["--scenes", "s.csv"], "s.csv"),
        (["pan.tif", "ms.tif"], "pan.tif"),
    ],
)
def test_mistakes_in_the_scenes_are_refused(tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    arguments = ["adapt", "-o", "b.ssdiff", *line]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(result.exception, click.UsageError | SSDiffError)
    assert message in str(result.exception)


@pytest.fixture
def adapted(monkeypatch):
    """What the command ``run`` passes on to adaptation, which succeeds, and to the run."""
    given = {}

    def adapt(scenes, target, **options):
        given.update(options, scenes=scenes, target=target)
        return given.get("result")

    def run_one(sharpener, progress, dry_run, **options):
        given["used"] = sharpener._bundle

    monkeypatch.setattr(ssdiff_trt.export.adaptation, "adapt", adapt)
    monkeypatch.setattr("ssdiff_trt.cli.scenes.run_one", run_one)
    return given


@pytest.mark.parametrize("better", [True, False])
def test_a_run_adapts_first_and_uses_the_bundle_if_it_is_better(adapted, tmp_path, better):
    adapted["result"] = bundle_for(4) if better else None
    target = tmp_path / "o.ssdiff"
    line = ["run", "p.tif", "m.tif", "-o", str(tmp_path / "o.tif"), "--adapt", "3", "--nodata", "0"]
    assert CliRunner().invoke(trt, line, standalone_mode=False).exception is None
    assert adapted["target"] == target
    assert adapted["scenes"] == [SceneEntry("p.tif", ("m.tif",))]
    assert (adapted["minutes"], adapted["nodata"], adapted["bundle"]) == (3, 0, None)
    assert adapted["used"] == (str(target) if better else None)


def test_a_run_uses_the_bundle_that_it_adapted_before(adapted, tmp_path):
    (tmp_path / "o.ssdiff").mkdir()
    line = ["run", "p.tif", "m.tif", "-o", str(tmp_path / "o.tif"), "--adapt", "3"]
    CliRunner().invoke(trt, line, standalone_mode=False)
    assert adapted["used"] == str(tmp_path / "o.ssdiff")
    assert "scenes" not in adapted


def test_a_run_cannot_adapt_without_torch_or_to_many_scenes(adapted, monkeypatch):
    many = ["run", "--scenes", "s.csv", "--adapt", "3"]
    result = CliRunner().invoke(trt, many, standalone_mode=False)
    assert isinstance(result.exception, click.UsageError)
    monkeypatch.setattr("ssdiff_trt.cli.adaptation.find_spec", lambda name: None)
    result = CliRunner().invoke(
        trt, ["run", "p.tif", "m.tif", "--adapt", "3"], standalone_mode=False
    )
    assert isinstance(result.exception, InputError)
    assert "needs PyTorch" in str(result.exception)
    assert adapted == {}


def test_a_run_names_its_own_option_if_the_time_to_adapt_is_no_time(adapted):
    line = ["run", "p.tif", "m.tif", "--adapt", "-1"]
    result = CliRunner().invoke(trt, line, standalone_mode=False)
    assert isinstance(result.exception, InputError)
    assert "`adapt`" in str(result.exception) or result.exception.parameter == "adapt"
    assert adapted == {}
