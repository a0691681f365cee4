"""Graphs in INT8: Q/DQ pairs around the layers of a plan, everything else as it was.

TensorRT 11 has no calibrators and no precision flags, so INT8 is explicit: a ``QuantizeLinear`` and
a ``DequantizeLinear`` on the input and on the weights of a layer, symmetric, weights per output
channel, biases left alone. Engines take the pairs for integer arithmetic; what stands between the
layers stays in the precision of the graph.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_GROUPS = (
    (re.compile(r"((?:spatial|downs|ups)\.\d)\."), r"\1"),
    (re.compile(r"(fusions\.\d)\.apfm\.s[ae]\d"), r"\1.projections"),
    (re.compile(r"(fusions\.\d)\.apfm\.(?:out|mlp\.\d)"), r"\1.mlp"),
)
_OPERATORS = ("Conv", "MatMul")
KEPT = {
    "stems": "they see the image itself, in its full depth",
    "head and MS skip": "their result is the image",
    "attention and softmax": "products of activations; small weights of many tokens add up",
    "norms, FMIM, time embedding, sampler": "as in FP16",
}
"""What is never quantised, and why."""


def group_name(node: str) -> str | None:
    """The group of layers that a node belongs to, such as ``spatial.0``; None if it is kept.

    Args:
        node: its name, such as ``spatial.0.conv1/Conv``.
    """
    module, _, kind = node.partition("/")
    if not kind.startswith(_OPERATORS) or ".time" in module:
        return None
    for pattern, name in _GROUPS:
        if match := pattern.match(module):
            return match.expand(name)
    return None


def quantisable(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes of a graph that may be quantised, by group, in the order of the network."""
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if (group := group_name(node.name)) is not None:
            groups.setdefault(group, []).append(node)
    return groups


def quantise(
    model: onnx.ModelProto, largest: Mapping[str, float], groups: Collection[str]
) -> onnx.ModelProto:
    """A copy of a graph with the layers of some groups in INT8.

    Args:
        model: as exported, in any precision, its constants inside.
        largest: magnitude that stands for 127 at the input of each node, by the node's name.
        groups: which ones, of :func:`quantisable`.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    copy = with_types(model)
    nodes = [node for name, part in quantisable(copy).items() if name in groups for node in part]
    dtype = _activation_type(copy)
    # Several nodes may read one tensor; a pair serves them all.
    reach: dict[str, float] = {}
    for node in nodes:
        tensor = node.input[0]
        reach[tensor] = max(reach.get(tensor, 0.0), largest[node.name])
    ranges = {
        tensor: TensorData(lowest=dtype(-high), highest=dtype(high))
        for tensor, high in reach.items()
    }
    quantiser = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_OPERATORS),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,  # weights stay those that the other graphs have
            "QuantizeBias": False,  # TensorRT refuses a dequantised INT32 bias
            "OpTypesToExcludeOutputQuantization": list(_OPERATORS),
            "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            "MatMulConstBOnly": True,
        },
    )
    quantised: onnx.ModelProto = quantiser.quantize_model()
    quantiser.model.topological_sort()
    del quantised.graph.value_info[:]
    return quantised


def with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that says the types of what may be quantised: not all of them can be inferred."""
    import numpy as np
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(_activation_type(copy)))
    tensors = {node.input[0] for nodes in quantisable(copy).values() for node in nodes}
    copy.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor, element, None) for tensor in sorted(tensors)
    )
    return copy


def _activation_type(model: onnx.ModelProto) -> type:
    """Of the layers' arithmetic, by their weights."""
    import numpy as np
    import onnx

    names = {node.input[1] for nodes in quantisable(model).values() for node in nodes}
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.name in names}
    return np.float16 if kinds == {onnx.TensorProto.FLOAT16} else np.float32


def pairs(model: onnx.ModelProto) -> int:
    """How many Q/DQ pairs a graph has."""
    return sum(node.op_type == "DequantizeLinear" for node in model.graph.node)
