from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest
from filelock import FileLock

from ssdiff_trt.runtime.bundle.manifest import SamplerDefaults
from ssdiff_trt.runtime.bundle.store import MANIFEST, bundle_for, open_bundle
from ssdiff_trt.runtime.pansharpener import pansharpen
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import EXAMPLE, PairMaker

# On a machine with a GPU the same tests run on the CPU; `make gpu-check` is for the GPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


EXPORTS = ("low4", "samples4", "int8"), ("bundle8",)
"""Fixtures that export a bundle, which takes minutes; those of one group need each other."""


@pytest.hookimpl(trylast=True)  # once those that are not run are left out
def pytest_collection_modifyitems(items):
    """Start each group of exports on a worker of its own, so that no worker waits for another.

    pytest-xdist gives each worker a quarter of its share at the beginning, one after the other.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    first = len(items) // (4 * workers)
    for number, fixtures in reversed([*enumerate(EXPORTS)]):  # who needs both, waits on the first
        users = [item for item in items if set(fixtures) & set(item.fixturenames)]
        items[:] = [item for item in items if item not in users]
        place = min(number, workers - 1) * first
        items[place:place] = users


@pytest.fixture
def without_cuda_provider(monkeypatch):
    """An ONNX Runtime without GPU providers, whichever is installed."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What this user has exported and built has no say in the tests."""
    os.environ["SSDIFF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def bundle4():
    return bundle_for(4)


@pytest.fixture(scope="session")
def fp32_only(bundle4):
    """generic4 without graphs in low precision."""
    graphs = tuple(graph for graph in bundle4.manifest.graphs if graph.precision == "fp32")
    return replace(bundle4, manifest=bundle4.manifest.model_copy(update={"graphs": graphs}))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """One folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def golden8_weights(shared_folder):
    """The golden weights as a checkpoint of the authors' code would have them."""
    torch = pytest.importorskip("torch")

    from tests.support.golden import golden_state

    path = shared_folder / "golden8.pt"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            torch.save(golden_state(8), path)
    return path


@pytest.fixture(scope="session")
def bundle8(shared_folder, golden8_weights):
    """An export of the golden weights, which the whole parity was part of."""
    from ssdiff_trt.export.bundle import export_bundle

    path = shared_folder / "golden8.ssdiff"
    with FileLock(f"{path}.lock"):  # made once, whichever worker needs it first
        if path.exists():
            return open_bundle(path)
        given = {"timesteps": (900, 500, 0), "progress": RecordingProgress()}  # random weights
        return export_bundle(golden8_weights, "wv3", path, **given)


@pytest.fixture(scope="session")
def low4(shared_folder):
    """generic4 in every precision, with two steps."""
    pytest.importorskip("torch")
    from ssdiff_trt.export.bundle import defaults_of, export_bundle

    path = shared_folder / "low4.ssdiff"
    with FileLock(f"{path}.lock"):
        if path.exists():
            return open_bundle(path)
        given = defaults_of(open_bundle("generic4").manifest) | {"timesteps": (999, 68)}
        return export_bundle("generic4", "generic", path, precisions=("fp16", "bf16"), **given)


@pytest.fixture(scope="session")
def samples4(shared_folder, low4):
    """Calibration samples of low4 on the example scene, as a file."""
    from ssdiff_trt.calibration.collection import collect

    path = shared_folder / "samples4.npz"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            given = {"full_scale": 10000, "tiles": 16, "bundle": low4}
            collect([EXAMPLE / "pan.tif", EXAMPLE / "ms.tif"], path, **given)
    return path


@pytest.fixture(scope="session")
def int8(shared_folder, low4, samples4):
    """low4 with graphs in INT8."""
    from ssdiff_trt.export.bundle import defaults_of, export_bundle

    path = shared_folder / "int8.ssdiff"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            given = defaults_of(low4.manifest)
            export_bundle(
                low4.path,
                "generic",
                path,
                precisions=("int8",),
                calibration=samples4,
                **given,
            )
    return open_bundle(path)


@pytest.fixture
def become_terminal(capsys, monkeypatch):
    """Makes the standard output of the test a terminal of 80 columns."""

    def become():
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "dumb")

    return become


@pytest.fixture
def make_pair(tmp_path):
    return PairMaker(tmp_path)


@pytest.fixture(scope="session")
def standin4(tmp_path_factory, bundle4):
    """A bundle for stand-ins: generic4 without graphs, with tiles of 64 pixels and two steps."""
    sampler = SamplerDefaults(name="consistent", timesteps=(999, 68))
    model = bundle4.manifest.model.model_copy(update={"tile": 64})
    changes = {"model": model, "sampler": sampler, "graphs": (), "files": {}}
    folder = tmp_path_factory.mktemp("standin") / "generic4.ssdiff"
    folder.mkdir()
    manifest = bundle4.manifest.model_copy(update=changes)
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return open_bundle(folder)


@pytest.fixture
def run(tmp_path, bundle4, standin4):
    def run(pair, backend=None, name="out.tif", **options):
        bundle = bundle4 if isinstance(backend, str) else standin4
        given = {"bundle": bundle, "progress": RecordingProgress()}
        options = given | {"backend": backend or StandIn()} | options
        return pansharpen(*pair, tmp_path / name, **options)

    return run


@pytest.fixture(scope="session")
def golden_mat(tmp_path_factory):
    """The toolbox's WorldView-3 scene as a file of the toolbox."""
    from scipy.io import savemat

    from tests.support.dlpan import golden_arrays
    from tests.support.imagery import channels_last

    golden = golden_arrays()
    path = tmp_path_factory.mktemp("golden") / "wv3.mat"
    savemat(path, {"I_MS": channels_last(golden["I_MS"]), "I_PAN": golden["I_PAN"]})
    return path
