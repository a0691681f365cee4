"""Runs on the pair of a STAC item."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster.stac import read_item
from tests.support.rasters import read_raster, write_raster
from tests.support.scenes import MS_GRID

NAMES = ("nir", "red", "green", "blue")


def asset(href, *names, **more):
    return {"href": href, "eo:bands": [{"common_name": name} for name in names], **more}


@pytest.fixture
def folder(make_pair, tmp_path):
    """PAN, and MS with its bands in the reverse order, in a folder of their own."""
    pan, ms = make_pair(64, 64)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "p.tif").write_bytes(pan.read_bytes())
    bands = read_raster(ms)
    write_raster(folder / "m.tif", bands[::-1], MS_GRID)
    for name, band in zip(NAMES, bands[::-1], strict=True):
        write_raster(folder / f"{name}.tif", band[None], MS_GRID)
    return folder


def write_item(folder, **assets):
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "scene",
        "geometry": None,
        "properties": {"datetime": "2024-05-01T10:00:00Z", "proj:epsg": 1},
        "links": [],
        "assets": assets,
    }
    path = folder / "item.json"
    path.write_text(json.dumps(item))
    return path


def run(*words):
    return CliRunner().invoke(cli, ["run", *map(str, words), "--shift", "none"])


WHOLE = {"p": asset("p.tif", "pan"), "m": asset("m.tif", *NAMES), "thumbnail": {"href": "t.png"}}


@pytest.mark.parametrize(
    "assets",
    [
        WHOLE,
        {"pan": {"href": "./p.tif"}, **{name: asset(f"{name}.tif", name) for name in NAMES}},
        {"x": {"href": "p.tif", "roles": ["data", "pan"]}, "m": WHOLE["m"]},
        {
            "p": {"href": "p.tif", "bands": [{"name": "P", "eo:common_name": "pan"}]},
            "m": {"href": "m.tif", "bands": [{"eo:common_name": name} for name in NAMES]},
        },
    ],
)
def test_the_result_is_that_of_the_files_and_has_an_item(folder, make_pair, tmp_path, assets):
    pan, ms = make_pair(64, 64)
    assert run(pan, ms, "-o", tmp_path / "files.tif").exit_code == 0
    output = tmp_path / "item.tif"
    done = run("--stac", write_item(folder, **assets), "-o", output)
    assert done.exit_code == 0, f"{done.exception}{done.output}"
    found = {frozenset(map(bytes, read_raster(path))) for path in (output, tmp_path / "files.tif")}
    assert len(found) == 1  # the order of the bands is that of each file
    item = json.loads((tmp_path / "item.json").read_text())
    assert item["id"] == "scene_item"
    assert item["properties"]["datetime"] == "2024-05-01T10:00:00Z"
    assert "proj:epsg" not in item["properties"]
    assert "ssdiff-trt" in item["properties"]["processing:software"]
    assert item["assets"]["pansharpened"]["href"] == "./item.tif"
    assert item["links"][0]["href"].endswith("data/item.json")


@pytest.mark.parametrize(
    ("assets", "sentence"),
    [
        ({"m": WHOLE["m"]}, "has no asset with the panchromatic band, expected one"),
        (WHOLE | {"q": asset("q.tif", "pan")}, "has p, q with the panchromatic band"),
        ({"p": WHOLE["p"]}, "has no assets with the bands blue, green, red, nir"),
        (WHOLE | {"n": asset("n.tif", *NAMES)}, r"in m, n, expected one asset"),
        ({}, "has no asset with the panchromatic"),
    ],
)
def test_an_item_without_one_pair_is_refused(tmp_path, assets, sentence):
    with pytest.raises(InputError, match=sentence):
        read_item(str(write_item(tmp_path, **assets)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as a STAC item"),
        ("[" * 100_000, "cannot be read as a STAC item"),
        ("[]", "is no STAC item"),
        ('{"type": "Feature", "id": 1, "properties": {}, "assets": {"a": 1}}', "is no STAC item"),
        (
            '{"type": "Feature", "id": 1, "properties": {}, "assets": {"a": {"href": "p.tif", '
            '"eo:bands": [1]}}}',
            "no asset with the panchromatic",
        ),
    ],
)
def test_what_is_no_item_is_refused(tmp_path, content, sentence):
    (tmp_path / "item.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_item(str(tmp_path / "item.json"))


def test_mistakes_leave_nothing(folder, tmp_path):
    item = write_item(folder, **WHOLE)
    for words, sentence in (
        (["--stac", item], "--stac needs -o"),
        (["--stac", item, "-o", "s3://bucket/o.tif"], "--stac needs -o with a file"),
        ([folder / "p.tif", "--stac", item, "-o", tmp_path / "o.tif"], "give one of them"),
        (["--stac", item, "--ms", folder / "m.tif", "-o", tmp_path / "o.tif"], "leave MS out"),
        (["--stac", tmp_path / "none.json", "-o", tmp_path / "o.tif"], "none.json cannot be read"),
    ):
        done = run(*words)
        assert done.exit_code != 0
        assert sentence in f"{done.exception}{done.output}"
    (tmp_path / "o.json").touch()
    done = run("--stac", item, "-o", tmp_path / "o.tif")
    assert "o.json exists" in str(done.exception)
    assert not (tmp_path / "o.tif").exists()
    np.testing.assert_equal((tmp_path / "o.json").stat().st_size, 0)
