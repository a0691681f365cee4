"""The engine cache: reuse, verification of the sha256, and builds by one process at a time."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

import pytest

from ssdiff_trt.runtime.backends.tensorrt.engine import EngineKey
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache, engine_file
from ssdiff_trt.runtime.progress import Progress
from tests.support.progress import RecordingProgress

KEY = EngineKey(
    graph="a" * 64,
    flavour="tensorrt",
    version="10.3.0",
    gpu="Orin, sm87",
    precision="fp16",
    form="portable",
    batch=8,
    options=("no TF32",),
    platform="linux-aarch64",
)
AS_ROOT = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away"
)


class Builder:
    """Returns fake engines and counts the builds."""

    def __init__(self):
        self.built, self.timings = 0, []

    def __call__(self, timing):
        self.built += 1
        self.timings.append(timing)
        return b"engine %d" % self.built, {"CONVOLUTION HALF": 35}


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def test_an_engine_is_built_once_with_a_note(cache):
    build, progress = Builder(), RecordingProgress()
    assert cache.get(KEY, build, progress) == b"engine 1"
    assert cache.get(KEY, build, progress) == b"engine 1"
    assert build.built == 1
    assert progress.notes == [
        "Building an engine in fp16 for batches of 8 on Orin, sm87, to be cached; nobody has timed "
        "that yet"
    ]


def test_how_long_a_build_takes_is_noted_before_it(cache):
    build, progress = Builder(), RecordingProgress()
    cache.get(KEY.model_copy(update={"flavour": "tensorrt-rtx"}), build, progress)
    assert progress.notes[-1].endswith("; elsewhere it took 3 to 12 s, on two CPU cores")
    cache.put(KEY.model_copy(update={"batch": 4}), b"engine", {}, 41.7)
    cache.get(KEY, build, progress)
    assert progress.notes[-1].endswith("batch was 4 and is now 8); that one took 42 s")


@pytest.mark.parametrize(
    ("field", "value", "difference"),
    [
        ("graph", "b" * 64, "graph was aaaaaaaa"),
        ("version", "10.7.0", "version was 10.3.0 and is now 10.7.0"),
        ("gpu", "Orin Nano, sm87", "gpu was Orin, sm87 and is now Orin Nano, sm87"),
        ("precision", "fp32", "precision was fp16 and is now fp32"),
        ("batch", 4, "batch was 8 and is now 4"),
        ("options", (), "options was ('no TF32',) and is now ()"),
        ("platform", "linux-x86_64", "platform was linux-aarch64 and is now linux-x86_64"),
    ],
)
def test_an_engine_with_another_key_is_not_reused_and_the_difference_is_noted(
    cache, field, value, difference
):
    build, progress = Builder(), RecordingProgress()
    cache.get(KEY, build, progress)
    other_key = KEY.model_copy(update={field: value})
    assert cache.get(other_key, build, progress) == b"engine 2"
    assert f"(most similar cached engine: {difference}" in progress.notes[-1]
    assert cache.get(KEY, build, progress) == b"engine 1"  # the first engine is still cached


def test_an_engine_whose_sha256_differs_is_rebuilt(cache):
    build, progress = Builder(), RecordingProgress()
    cache.get(KEY, build, progress)
    path = cache.folder / f"{KEY.digest}.engine"
    path.write_bytes(b"engine 1, tampered with")
    assert cache.get(KEY, build, progress) == b"engine 2"
    assert "has changed since it was built (its sha256 differs)" in progress.warnings[0]
    assert path.read_bytes() == b"engine 2"


@pytest.mark.parametrize("damage", ["record", "engine", "both"])
def test_a_damaged_cache_is_rebuilt(cache, damage):
    build = Builder()
    cache.get(KEY, build, Progress())
    if damage in ("record", "both"):
        (cache.folder / f"{KEY.digest}.json").write_text('{"key":')
    if damage in ("engine", "both"):
        (cache.folder / f"{KEY.digest}.engine").unlink()
    assert cache.get(KEY, build, Progress()) == b"engine 2"
    assert cache.get(KEY, build, Progress()) == b"engine 2"


def widen(cache):
    cache.folder.chmod(0o770)


def give_away(cache):
    for path in (cache.folder, *cache.folder.iterdir()):
        os.chown(path, 12345, -1)


def lead_elsewhere(cache):
    other = cache.folder.rename(cache.folder.with_name("other"))
    other.chmod(0o757)
    cache.folder.symlink_to(other)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (widen, "can be written to by others (mode 0770)"),
        (lead_elsewhere, "can be written to by others (mode 0757)"),
        pytest.param(give_away, "belongs to another user (uid 12345)", marks=AS_ROOT),
    ],
)
def test_nothing_is_loaded_from_a_folder_that_others_can_write_to(cache, change, fault):
    build, progress = Builder(), RecordingProgress()
    cache.get(KEY, build, progress)
    change(cache)
    before = {path: path.read_bytes() for path in cache.folder.iterdir()}
    assert cache.get(KEY, build, progress) == b"engine 2"
    (warning,) = progress.warnings
    assert warning.startswith(
        f"No engine is loaded from or stored in {cache.folder}, which {fault}"
    )
    assert build.timings[1] is None
    assert {path: path.read_bytes() for path in cache.folder.iterdir()} == before


def widen_file(path):
    path.chmod(0o620)


def link_file(path):
    other = path.rename(path.parent.parent / "elsewhere.engine")
    path.symlink_to(other)


def give_file_away(path):
    os.chown(path, 12345, -1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (widen_file, "can be written to by others (mode 0620)"),
        (link_file, "is a link"),
        pytest.param(give_file_away, "belongs to another user (uid 12345)", marks=AS_ROOT),
    ],
)
def test_an_engine_that_others_could_have_written_is_rebuilt(cache, change, fault):
    build, progress = Builder(), RecordingProgress()
    cache.get(KEY, build, progress)
    path = cache.folder / engine_file(KEY)
    change(path)
    assert cache.get(KEY, build, progress) == b"engine 2"
    assert progress.warnings == [f"The engine {path} {fault}; it is not loaded but rebuilt"]
    assert cache.get(KEY, build, progress) == b"engine 2"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_engines_are_this_users_alone_whatever_the_umask(cache):
    old = os.umask(0)
    try:
        assert cache.get(KEY, Builder(), Progress()) == b"engine 1"
    finally:
        os.umask(old)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    for name in (engine_file(KEY), f"{KEY.digest}.json"):
        assert (cache.folder / name).stat().st_mode & 0o777 == 0o600
    assert cache.get(KEY, Builder(), Progress()) == b"engine 1"


def test_a_failed_build_leaves_nothing(cache):
    def build(timing):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get(KEY, build, Progress())
    assert cache.get(KEY, Builder(), Progress()) == b"engine 1"


def build_slowly(timing):
    with (timing.parent / "builds").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    return b"engine", {}


def get_slowly(folder, results):
    results.put(EngineCache(folder).get(KEY, build_slowly, Progress()))


def test_concurrent_processes_build_an_engine_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=get_slowly, args=(tmp_path / "engines", results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [b"engine"] * 3
    for process in processes:
        process.join()
    assert (tmp_path / "engines" / "builds").read_text() == "x"


def test_how_long_a_build_took_is_known_for_the_key_it_was_built_for(cache, tmp_path):
    cache.get(KEY, Builder(), Progress())
    (tmp_path / "engines" / "broken.json").write_text("{")
    cache.put(KEY, b"engine", {}, 12.3456)
    assert cache.build_seconds(KEY) == 12.35
    assert cache.build_seconds(KEY.model_copy(update={"precision": "fp32"})) is None


def test_each_gpu_and_version_has_a_timing_cache_of_its_own(cache):
    builder = Builder()
    changes = ({}, {"gpu": "NVIDIA RTX A2000/8, sm86"}, {"version": "10.7.0"}, {"batch": 4})
    for change in changes:
        cache.get(KEY.model_copy(update=change), builder, Progress())
    assert [path.name for path in builder.timings] == [
        "timing.tensorrt-10.3.0.Orin-sm87.cache",
        "timing.tensorrt-10.3.0.NVIDIA-RTX-A2000-8-sm86.cache",
        "timing.tensorrt-10.7.0.Orin-sm87.cache",
        "timing.tensorrt-10.3.0.Orin-sm87.cache",
    ]


@pytest.mark.parametrize(("count", "told"), [(3, True), (4, False)])
def test_an_engine_with_more_than_three_differences_is_not_called_similar(cache, count, told):
    cache.get(KEY, Builder(), Progress())
    changes = {"precision": "fp32", "form": "fused", "version": "10.7.0", "options": ()}
    other = KEY.model_copy(update=dict(list(changes.items())[:count]))
    progress = RecordingProgress()
    cache.get(other, Builder(), progress)
    assert ("most similar cached engine" in progress.notes[0]) == told
