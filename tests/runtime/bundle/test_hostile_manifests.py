"""Manifests whose damage no schema sees, in one sentence."""

from __future__ import annotations

import json
import shutil

import pytest

from ssdiff_trt.runtime.bundle import store
from ssdiff_trt.runtime.errors import BundleError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "its values are nested too deep"),
        ('{"format": 3, "\\udcff": 1}', "surrogates not allowed"),
        ('{"format": []}', r"format is \[\], this version reads"),
        ('{"format": {}}', r"format is \{\}, this version reads"),
        ('{"format": "1"}', "format is '1', this version reads"),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        store.open_bundle(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udcff"])
def test_a_name_that_no_file_can_have_is_that_of_a_missing_file(bundle4, tmp_path, name):
    manifest = json.loads((bundle4.path / "manifest.json").read_text())
    manifest["files"] = {name: "0" * 64, **manifest["files"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"lacks its file|is not valid"):
        store.open_bundle(tmp_path)


def test_a_file_that_may_not_be_read_gives_one_sentence(bundle4, tmp_path, monkeypatch):
    def refuse(*member):
        raise PermissionError(13, "Permission denied")

    shutil.copytree(bundle4.path, tmp_path / "b.ssdiff")
    monkeypatch.setattr(store, "_read_member", refuse)
    with pytest.raises(BundleError, match=r"b.ssdiff cannot be read \(Permission denied\)"):
        store.open_bundle(tmp_path / "b.ssdiff")
