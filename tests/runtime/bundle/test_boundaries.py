"""A bundle is a download: nothing in it leads to files outside of it, or to other formats."""

from __future__ import annotations

import json
import shutil

import pytest

from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import BundleError

WEIGHTS = "weights.fp32.safetensors"


@pytest.fixture
def copy(bundle4, tmp_path):
    return shutil.copytree(bundle4.path, tmp_path / "copy.ssdiff")


@pytest.mark.parametrize("name", ["manifest.json", WEIGHTS, "step.fp32.fused.onnx"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_that_leads_out_of_the_bundle_is_refused(copy, tmp_path, name, absolute):
    outside = (copy / name).rename(tmp_path / "outside")
    (copy / name).symlink_to(outside if absolute else "../outside")
    with pytest.raises(
        BundleError, match=rf"{name} is .*outside, expected a file inside the bundle"
    ):
        open_bundle(copy)


def test_links_to_a_bundle_and_inside_it_are_followed(copy, tmp_path, bundle4):
    (copy / WEIGHTS).rename(copy / "renamed.safetensors")
    (copy / WEIGHTS).symlink_to("renamed.safetensors")
    link = tmp_path / "link.ssdiff"
    link.symlink_to(copy)
    assert open_bundle(link).sha256 == bundle4.sha256


def other_format(manifest):
    """ONNX Runtime reads a file of this suffix as another format, which is not checked."""
    manifest["graphs"][0]["file"] = "graph.ort"
    manifest["files"]["graph.ort"] = "0" * 64


def engine_outside(manifest):
    manifest["engines"] = {"../a.engine": "0" * 64}


def impossible_name(manifest):
    manifest["files"]["n" * 300] = "0" * 64


def no_text_for_a_system(manifest):
    manifest["files"]["a\0b"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (impossible_name, "lacks its file nnn"),
        (no_text_for_a_system, "lacks its file a"),
        (other_format, "the graph 'graph.ort' is no .onnx file"),
        (engine_outside, "the file '../a.engine' is outside the bundle directory"),
    ],
)
def test_a_manifest_that_names_other_files_is_refused(copy, change, message):
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        open_bundle(copy)
