"""The first layer of the step graph that differs from FP32, by Polygraphy.

ONNX Runtime on the CPU runs the portable graph in FP32, and the verified backend's engine that in
its own precision, with every layer that both graphs have as an output. TensorRT fuses fewer layers
then than in a run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.backends.onnxruntime import open_session
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import BackendError, install
from ssdiff_trt.runtime.files import reason_of
from ssdiff_trt.runtime.options import Precision

LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.03, "bf16": 0.24, "int8": 0.3}
"""Difference from which on a layer is said to differ, by precision.

In FP16, ONNX Runtime has at most 8e-3 on the shipped bundles; BF16 rounds 8 times as coarsely. TF32
would exceed that of FP32. Those of BF16 and INT8 are estimates.
"""
_FLOAT = 1  # TensorProto.FLOAT
_FLOATS = (_FLOAT, 10, 16)  # FLOAT16, BFLOAT16
_INT = 2  # AttributeProto.INT


class Layer(Strict):
    """The output of a layer in both graphs."""

    name: str
    operator: str
    """Operator of ONNX."""
    difference: float
    """RMS of the difference as a fraction of the RMS of the output in FP32."""


class Layers(Strict):
    """A comparison of all layers that both graphs have, at one step."""

    t: float
    """Time input of the network."""
    limit: float
    """Difference from which on a layer is said to differ."""
    layers: tuple[Layer, ...]
    """In the order of the graph."""

    @property
    def first(self) -> int | None:
        """Index of the first layer that differs; NaN differs."""
        over = (i for i, layer in enumerate(self.layers) if not layer.difference <= self.limit)
        return next(over, None)


class Value(NamedTuple):
    """What two graphs have to agree on for a layer to be the same."""

    name: str
    operator: str
    shape: tuple[int | str, ...]


def require_polygraphy() -> None:
    """Check that Polygraphy is installed.

    Raises:
        BackendError: if it is not, or not with all it needs.
    """
    for name in ("onnx", "polygraphy"):
        if find_spec(name) is None:
            raise BackendError(
                f"Layers are compared by Polygraphy, and {name} is not installed; "
                f"{install('debug')}."
            )


def compare_layers(
    bundle: Bundle, backend: str, precision: Precision, inputs: Mapping[str, NDArray[np.float32]]
) -> Layers:
    """Compare the layers of the step graph with those in FP32.

    Args:
        bundle: bundle with the graphs.
        backend: backend whose engine runs the graph.
        precision: precision of its graph.
        inputs: inputs of the step graph, of one tile.

    Raises:
        SSDiffError: if Polygraphy is not installed, the bundle has no such graph, or a backend
            cannot run it.
    """
    require_polygraphy()
    if backend == "tensorrt-rtx":
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"  # which is read when it is imported
    from polygraphy.comparator import Comparator, SnrCompareFunc
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        contents, shared = graphs(bundle, precision)
        runners = [_runner("onnxruntime", contents[0]), _runner(backend, contents[1])]
        try:
            results = Comparator.run(runners, data_loader=[dict(inputs)])
        except PolygraphyException as error:
            raise BackendError(
                f"{backend} cannot run the graph in {precision} with all layers as outputs "
                f"({reason_of(error)}); free GPU memory, or choose another `precision`."
            ) from error
        (accuracy,) = Comparator.compare_accuracy(results, compare_func=SnrCompareFunc())
    ((compared,),) = accuracy.values()
    layers = (
        Layer(
            name=value.name,
            operator=value.operator,
            difference=float(10 ** (-compared[_output(value.name)].snr / 20)),
        )
        for value in shared
    )
    (t,) = inputs["t"]
    return Layers(t=float(t), limit=LIMITS[precision], layers=tuple(layers))


def graphs(bundle: Bundle, precision: Precision) -> tuple[list[bytes], list[Value]]:
    """The graphs in FP32 and in a precision, with the layers that both have as outputs in FP32.

    Returns:
        Both graphs for one tile, serialised, and the layers in the order of the first.
    """
    from polygraphy.backend.onnx import infer_shapes, onnx_from_path

    files = (bundle.graph("step", which, "portable").file for which in ("fp32", precision))
    models = [infer_shapes(onnx_from_path(str(bundle.path / file))) for file in files]
    others = set(_values(models[1]))
    shared = [value for value in _values(models[0]) if value in others]
    return [_with_outputs(model, [value.name for value in shared]) for model in models], shared


def _values(model: Any) -> Iterator[Value]:
    """Outputs of the layers of a graph that are floating-point numbers."""
    types = {
        value.name: value.type.tensor_type
        for value in (*model.graph.value_info, *model.graph.output)
    }
    for node in model.graph.node:
        for name in node.output:
            if name in types and types[name].elem_type in _FLOATS:
                dims = types[name].shape.dim
                shape = tuple(dim.dim_value or str(dim.dim_param) for dim in dims)
                yield Value(name, str(node.op_type), shape)


def _output(name: str) -> str:
    """Name of a layer's output in FP32."""
    return f"{name} in fp32"


def _with_outputs(model: Any, names: list[str]) -> bytes:
    """A graph for one tile with other outputs, cast to FP32; serialised."""
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = dim.dim_value or 1
    del model.graph.value_info[:], model.graph.output[:]
    for name in names:
        cast = model.graph.node.add(op_type="Cast", input=[name], output=[_output(name)])
        cast.attribute.add(name="to", type=_INT, i=_FLOAT)
        model.graph.output.add(name=_output(name)).type.tensor_type.elem_type = _FLOAT
    content: bytes = model.SerializeToString()
    return content


def _runner(backend: str, model: bytes) -> Any:
    """Polygraphy's runner of a graph for a backend."""
    if backend.startswith("tensorrt"):
        from polygraphy.backend.trt import EngineFromNetwork, NetworkFromOnnxBytes, TrtRunner

        network = NetworkFromOnnxBytes(model, strongly_typed=True)
        return TrtRunner(EngineFromNetwork(network))
    from polygraphy.backend.onnxrt import OnnxrtRunner

    on_gpu = backend == "onnxruntime-cuda"
    providers = ["CUDAExecutionProvider"] if on_gpu else ["CPUExecutionProvider"]
    return OnnxrtRunner(partial(open_session, model, providers, integers=False))
