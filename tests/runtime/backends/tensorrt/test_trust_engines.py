"""Engines of a bundle, which is a download: loaded only where they are trusted and listed."""

from __future__ import annotations

import hashlib
import os
import shutil
from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt import opening
from ssdiff_trt.runtime.backends.tensorrt.engine import EngineKey
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache, engine_file
from ssdiff_trt.runtime.bundle.store import ENGINES, open_bundle
from ssdiff_trt.runtime.errors import BundleError
from tests.support.fake_gpu import FakeCuda
from tests.support.imagery import make_bundle
from tests.support.progress import RecordingProgress

KEY = EngineKey(
    graph="a" * 64,
    flavour="tensorrt",
    version="10.3.0",
    gpu="Fake GPU, sm86",
    precision="fp32",
    form="portable",
    batch=8,
    options=(),
    platform="linux-x86_64",
)
CONTENT = b"native code from elsewhere"
OTHER = EngineKey(**KEY.model_dump() | {"gpu": "Other GPU, sm89"})


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """The engines that were loaded, on a fake GPU whose engines are b"built here"."""
    engines = []

    def load(engine, *_, **__):
        engines.append(engine)
        return SimpleNamespace(build_seconds=None)

    def plan(bundle, flavour, precision, target, batch):
        asked = {"bundle": bundle, "flavour": flavour, "precision": precision, "batch": batch}
        return SimpleNamespace(key=KEY, trt=None, build=lambda *_: (b"built here", {}), **asked)

    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "open_cuda", lambda index: FakeCuda())
    monkeypatch.setattr(opening, "Plan", plan)
    monkeypatch.setattr(opening, "TensorRT", load)
    return engines


@pytest.fixture
def make(tmp_path):
    """Makes a bundle whose folder has the engine and, as old exports did, a record of it."""

    def make(listed=CONTENT, key=KEY):
        lists = {} if listed is None else {engine_file(key): hashlib.sha256(listed).hexdigest()}
        bundle = open_bundle(make_bundle(tmp_path, "download", 4, engines=lists))
        EngineCache(bundle.path / ENGINES).get(key, lambda _: (CONTENT, {}), RecordingProgress())
        return bundle

    return make


def open_it(bundle, trust, progress=None):
    open_backend(
        "tensorrt",
        bundle,
        precision="fp32",
        trust_engines=trust,
        progress=progress or RecordingProgress(),
    )


def test_engines_of_a_bundle_are_not_used_unless_they_are_trusted(loaded, make):
    bundle, progress = make(), RecordingProgress()
    for _ in range(2):
        open_it(bundle, False, progress)
    assert loaded == [b"built here"] * 2
    notes = [note for note in progress.notes if "not used" in note]
    assert len(notes) == 2  # one for each time
    assert str(bundle.path) in notes[0]
    assert "pass `trust_engines`" in notes[0]


def test_engines_that_are_trusted_and_listed_are_used_and_not_copied_to_the_cache(loaded, make):
    progress = RecordingProgress()
    open_it(make(), True, progress)
    assert loaded == [CONTENT]
    assert not EngineCache().folder.exists()
    assert not progress.notes


@pytest.mark.parametrize("trust", [False, True])
def test_an_engine_that_the_manifest_does_not_list_is_never_used(loaded, make, trust):
    open_it(make(listed=None), trust)
    assert loaded == [b"built here"]


def test_where_no_trusted_engine_fits_a_note_says_so(loaded, make):
    progress = RecordingProgress()
    open_it(make(key=OTHER), True, progress)
    assert loaded == [b"built here"]
    assert progress.notes[0].endswith("has no engine in fp32 for batches of 8 on Fake GPU, sm86")


def change(folder):
    (folder / engine_file(KEY)).write_bytes(b"something else")


def remove(folder):
    shutil.rmtree(folder)


def lead_outside(folder):
    outside = folder.rename(folder.parent.parent / "outside")
    os.symlink(outside, folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change, "is not the one that was exported"),
        (remove, f"lacks its file engines/{engine_file(KEY)}"),
        (lead_outside, "expected a file inside the bundle"),
    ],
)
def test_a_trusted_engine_that_is_not_the_listed_one_is_refused(loaded, make, damage, message):
    bundle = make()
    damage(bundle.path / ENGINES)
    again = open_bundle(bundle.path)  # its graphs are as they were
    with pytest.raises(BundleError, match=message):
        open_it(again, True)
    assert not loaded
    open_it(again, False)
    assert loaded == [b"built here"]
