"""How an engine is built, by a fake TensorRT that records what it is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.backends.tensorrt import engine
from ssdiff_trt.runtime.backends.tensorrt.engine import Plan, form_for
from ssdiff_trt.runtime.errors import BackendError
from tests.support.progress import RecordingProgress


class Layer:
    type = "attention"


class AttentionLayer:
    type = "attention"


class Config:
    """A builder's configuration; calls of no interest do nothing."""

    def __init__(self):
        self.timing, self.flags = None, []

    def __getattr__(self, name):
        return lambda *arguments: None

    def set_flag(self, flag):
        self.flags.append(flag)

    def create_timing_cache(self, content):
        if content == b"damaged":
            return None
        return SimpleNamespace(serialize=lambda: b"new", content=content)

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache.content == b"of another GPU" and not ignore_mismatch:
            return False
        self.timing = cache
        return True

    def get_timing_cache(self):
        return self.timing


@pytest.fixture
def fake(monkeypatch):
    """A fake of TensorRT, version 10.14: what each build gives, and what was asked for."""
    layer = Layer()
    layer.attention = SimpleNamespace(decomposable=False)
    inputs = (SimpleNamespace(shape=(-1, 4, 64, 64)), SimpleNamespace(shape=(3,)))
    network = SimpleNamespace(
        num_layers=1,
        get_layer=lambda i: layer,
        num_inputs=2,
        get_input=lambda i: inputs[i],
    )
    asked = SimpleNamespace(results=[b"engine"], builds=[], inputs=inputs, configs=[], log=[])

    def build(network, config):
        asked.builds.append(layer.attention.decomposable)
        monitor = config.progress_monitor
        monitor.phase_start("Build", None, 3)
        monitor.step_complete("Build", 0)
        asked.steps = monitor.step_complete("Build", 1), asked.progress.done
        monitor.phase_finish("Build")
        for severity, message in asked.log:
            asked.logger.log(severity, message)
        return asked.results.pop(0)

    def builder(logger):
        asked.logger = logger
        asked.configs.append(Config())
        return SimpleNamespace(
            create_network=lambda flags: network,
            create_builder_config=lambda: asked.configs[-1],
            build_serialized_network=build,
        )

    class ILogger:
        Severity = SimpleNamespace(ERROR=1, WARNING=2, INFO=3)

    trt = SimpleNamespace(
        __version__="10.14.1",
        Builder=builder,
        OnnxParser=lambda *_: SimpleNamespace(parse_from_file=lambda path: True),
        ILogger=ILogger,
        IProgressMonitor=type("IProgressMonitor", (), {}),
        IAttentionInputLayer=AttentionLayer,
        LayerType=SimpleNamespace(ATTENTION_INPUT="attention"),
        BuilderFlag=SimpleNamespace(TF32=1),
        ProfilingVerbosity=SimpleNamespace(DETAILED=1),
    )
    asked.trt = trt
    monkeypatch.setattr(engine, "import_tensorrt", lambda flavour: trt)
    monkeypatch.setattr(engine, "check_target", lambda *_: None)
    monkeypatch.setattr(engine, "graph_digest", lambda *_: "digest")
    monkeypatch.setattr(engine, "audit_network", lambda *_: {})
    bundle = SimpleNamespace(path=engine.Path(), graph=lambda *_: SimpleNamespace(file="a.onnx"))
    asked.progress = RecordingProgress(verbose=True)
    asked.plan = lambda precision="fp16", batch=8, flavour="tensorrt", target=None: Plan(
        bundle, flavour, precision, target, batch
    )
    return asked


def test_an_engine_has_one_batch_size(fake):
    fake.plan(batch=16).build(fake.progress)
    assert [list(tensor.shape) for tensor in fake.inputs] == [[16, 4, 64, 64], [3]]


@pytest.mark.parametrize(
    ("precision", "results", "builds", "warned"),
    [
        ("fp16", [b"a"], [False], False),
        ("fp16", [None, b"a"], [False, True], True),
        ("fp32", [b"a"], [True], False),
    ],
)
def test_attention_is_decomposed_where_there_is_no_kernel(fake, precision, results, builds, warned):
    fake.results = results
    assert fake.plan(precision).build(fake.progress) == (b"a", {})
    assert fake.builds == builds
    assert any("attention is decomposed" in text for text in fake.progress.warnings) == warned


def test_a_build_that_fails_gives_the_last_error_and_details_are_warnings_alone(fake):
    fake.results = [None, None]
    fake.log = [(1, "first"), (2, "a warning"), (1, "no memory\nat all"), (3, "information")]
    with pytest.raises(BackendError, match=r"could not build a.onnx: no memory; the usual cause"):
        fake.plan().build(fake.progress)
    assert fake.progress.notes == ["TensorRT: a warning"] * 2


def test_the_timing_cache_is_taken_and_written_back(fake, tmp_path):
    timing = tmp_path / "timing"
    for content in (b"", b"new"):
        fake.results = [b"a"]
        fake.plan().build(fake.progress, timing=timing)
        assert fake.configs[-1].timing.content == content
        assert timing.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["timing"]


@pytest.mark.parametrize("content", [b"damaged", b"of another GPU"])
def test_a_timing_cache_that_tensorrt_refuses_is_replaced(fake, tmp_path, content):
    timing = tmp_path / "timing"
    timing.write_bytes(content)
    (other := tmp_path / "other").hardlink_to(timing)
    fake.plan().build(fake.progress, timing=timing)
    assert fake.configs[-1].timing.content == b""
    assert timing.read_bytes() == b"new"
    assert other.read_bytes() == content  # a new file took the name of the old one


def test_a_gpu_that_the_builder_refuses_is_an_error(fake, monkeypatch):
    monkeypatch.setattr(engine, "_capability", lambda *_: 86)
    plan = fake.plan(flavour="tensorrt-rtx", target="sm86")
    monkeypatch.setattr(Config, "set_compute_capability", lambda *_: False, raising=False)
    with pytest.raises(
        BackendError, match=r"TensorRT-RTX 10.14.1 refused to build for sm86; choose"
    ):
        plan.build(fake.progress)
    monkeypatch.setattr(Config, "set_compute_capability", lambda *_: True)
    assert plan.build(fake.progress) == (b"engine", {})


@pytest.mark.parametrize("exists", [True, False])
def test_flags_are_set_where_the_package_has_them_and_are_part_of_the_key(fake, exists):
    if exists:
        fake.trt.BuilderFlag.STRICT_NANS = 7
    plan = fake.plan()
    plan.build(fake.progress)
    assert fake.configs[-1].flags == ([7] if exists else [])
    assert plan.key.options == (("no TF32", "STRICT_NANS") if exists else ("no TF32",))


@pytest.mark.parametrize(("version", "accepted"), [("10.5.0", False), ("10.6.0", True)])
def test_bf16_starts_at_10_6(fake, version, accepted):
    fake.trt.__version__ = version
    if accepted:
        assert fake.plan("bf16").precision == "bf16"
    else:
        with pytest.raises(
            BackendError, match=r"BF16 needs TensorRT 10.6 .* this is 10.5.0; choose"
        ):
            fake.plan("bf16")


def test_steps_of_the_build_are_progress(fake):
    fake.plan().build(fake.progress)
    assert fake.steps == (True, 2)
    assert fake.progress.done == fake.progress.total == 3


@pytest.mark.parametrize(("version", "form"), [("10.13.3", "portable"), ("10.14.0", "fused")])
def test_attention_is_an_operator_since_10_14(version, form):
    assert form_for("tensorrt", SimpleNamespace(__version__=version)) == form
