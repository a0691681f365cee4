"""``trust_engines`` reaches the backend from everything that opens one, and is off by itself."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import ssdiff_ref.evaluation.evaluate
import ssdiff_trt.calibration.collection
import ssdiff_trt.runtime.pansharpener
import ssdiff_trt.runtime.parity.verification
from ssdiff_trt.cli import calibrate, ref, trt
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.benchmark.rounds import OPENER
from ssdiff_trt.runtime.benchmark.worker import Job
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import BackendError
from tests.support.rasters import EXAMPLE

PAIR = [EXAMPLE / "pan.tif", EXAMPLE / "ms.tif"]


@pytest.mark.parametrize(
    ("cli", "name"),
    [
        (trt.cli, "run"),
        (trt.cli, "verify"),
        (trt.cli, "bench"),
        (ref.cli, "evaluate"),
        (calibrate.cli, "collect"),
    ],
)
def test_commands_that_open_backends_have_the_flag(cli, name):
    (option,) = (param for param in cli.commands[name].params if param.name == "trust_engines")
    assert option.opts == ["--trust-engines"]
    assert option.is_flag
    assert option.default is False


def sharpen(folder, **options):
    ssdiff_trt.runtime.pansharpener.Pansharpener(bands=4, **options)


def verify(folder, **options):
    ssdiff_trt.runtime.parity.verification.verify("generic4", **options)


def bench(folder, **options):
    shared = {"task": "open", "bundle": "generic4", "batches": (1,), "threads": 1}
    job = Job(opener=OPENER, backend="auto", precision="auto", **shared, **options)
    with job.opened(open_bundle("generic4"), 1):
        pass


def evaluate(folder, **options):
    ssdiff_ref.evaluation.evaluate.evaluate(
        PAIR, sensor="generic", bundles=["generic4"], methods=["EXP"], **options
    )


def collect(folder, **options):
    ssdiff_trt.calibration.collection.collect(
        PAIR, folder / "s.npz", bundle="generic4", picture=False, full_scale=10000, **options
    )


@pytest.mark.parametrize(
    ("work", "trust"),
    [(work, True) for work in (sharpen, verify, bench, evaluate, collect)]
    + [(sharpen, False), (verify, False)],
)
def test_the_backend_gets_it(work, trust, tmp_path, monkeypatch):
    given = []

    def refuse(name, bundle, *, trust_engines, **options):
        given.append(trust_engines)
        raise BackendError("It was asked for.")

    for module in ("runtime.networks", "runtime.parity.verification", "calibration.collection"):
        monkeypatch.setattr(f"ssdiff_trt.{module}.open_backend", refuse)
    monkeypatch.setattr(f"{open_backend.__module__}.open_backend", refuse)
    with pytest.raises(BackendError, match=r"It was asked for\."):
        work(tmp_path, **({"trust_engines": True} if trust else {}))
    assert given == [trust]
