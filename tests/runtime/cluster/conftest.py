from __future__ import annotations

import pytest

from ssdiff_trt import pansharpen
from tests.support.progress import RecordingProgress

pytest.importorskip("distributed")

from tests.support.cluster import GIVEN, Two, stand_in, started


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """One for all tests, as processes take seconds to start."""
    folder = tmp_path_factory.mktemp("faults")
    with started(folder, n_workers=2, threads_per_worker=1, memory_limit="600MB") as client:
        yield Two(client, folder)


@pytest.fixture
def two(cluster):
    """The scheduler, with both workers there and without faults."""
    cluster.client.wait_for_workers(2)
    yield cluster
    for file in cluster.folder.iterdir():
        file.unlink()


@pytest.fixture
def on_workers(two, standin4, tmp_path):
    """Pansharpens a pair on them; gives the result and what was shown."""

    def run(pair, name="out.tif", **options):
        progress = options.pop("progress", None) or RecordingProgress(verbose=True)
        given = {"bundle": standin4.path, "scheduler": two.address, "progress": progress}
        return pansharpen(*pair, tmp_path / name, **given | GIVEN | options), progress

    return run


@pytest.fixture
def pair(make_pair):
    return make_pair()


@pytest.fixture
def expected(run, pair):
    """The bytes that a run in one process writes."""
    return run(pair, stand_in(), name="expected.tif", **GIVEN).output.read_bytes()
