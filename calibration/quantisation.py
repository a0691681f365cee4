"""Explicit INT8 quantisation of ONNX graphs by Q/DQ pairs.

TensorRT 11 has neither calibrators nor precision flags, so quantisation has to be in the graph: a
``QuantizeLinear`` and a ``DequantizeLinear`` on the input and on the weights of each layer to
quantise. Scales are symmetric, per tensor for inputs and per output channel for weights; biases are
not quantised. Engines compute a layer between such pairs in integers and all other operators in the
precision of the graph.
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
NEVER_QUANTISED = {
    "stems": "their inputs are the images, in full radiometric depth",
    "head and MS skip": "their outputs form the image",
    "attention and softmax": "products of activations; sums of small weights over many tokens",
    "norms, FMIM, time embedding, sampler": "in FP32 in FP16 graphs as well",
}
"""Layers that are never quantised, and the reason for each."""


def group_name(node: str) -> str | None:
    """The group of layers that a node belongs to, such as ``spatial.0``.

    Args:
        node: name of the node, such as ``spatial.0.conv1/Conv``.

    Returns:
        The name of the group; None if the node is never quantised.
    """
    module, _, operator = node.partition("/")
    if not operator.startswith(_OPERATORS) or ".time" in module:
        return None
    for pattern, name in _GROUPS:
        if match := pattern.match(module):
            return match.expand(name)
    return None


def quantisable(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes of a graph that can be quantised, by group, in the order of the graph."""
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if (group := group_name(node.name)) is not None:
            groups.setdefault(group, []).append(node)
    return groups


def quantise(
    model: onnx.ModelProto, largest: Mapping[str, float], groups: Collection[str]
) -> onnx.ModelProto:
    """A copy of a graph with the layers of the given groups in INT8.

    Args:
        model: an exported graph in FP32 or FP16, with its constants loaded.
        largest: by name of the node, the magnitude of its input that is quantised to 127.
        groups: names of groups from :func:`quantisable`.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    copy = with_activation_types(model)
    nodes = [
        node for group, members in quantisable(copy).items() if group in groups for node in members
    ]
    dtype = _activation_type(copy)
    # Several nodes may read one tensor, which has one Q/DQ pair and so one range.
    magnitudes: dict[str, float] = {}
    for node in nodes:
        tensor = node.input[0]
        magnitudes[tensor] = max(magnitudes.get(tensor, 0.0), largest[node.name])
    ranges = {
        tensor: TensorData(lowest=dtype(-magnitude), highest=dtype(magnitude))
        for tensor, magnitude in magnitudes.items()
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
            "AddQDQPairToWeight": True,  # keeps the weights shared with the source graph
            "QuantizeBias": False,  # TensorRT rejects a dequantised INT32 bias
            "OpTypesToExcludeOutputQuantization": list(_OPERATORS),
            "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            "MatMulConstBOnly": True,
        },
    )
    quantised: onnx.ModelProto = quantiser.quantize_model()
    quantiser.model.topological_sort()
    del quantised.graph.value_info[:]
    return quantised


def with_activation_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that declares the types of the inputs of quantisable nodes.

    ONNX Runtime's quantisation tools need these types, and shape inference does not find all.
    """
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
    """The numpy type of activations, which is that of the weights of the quantisable nodes."""
    import numpy as np
    import onnx

    names = {node.input[1] for nodes in quantisable(model).values() for node in nodes}
    types = {tensor.data_type for tensor in model.graph.initializer if tensor.name in names}
    return np.float16 if types == {onnx.TensorProto.FLOAT16} else np.float32


def count_qdq_pairs(model: onnx.ModelProto) -> int:
    """Number of Q/DQ pairs in a graph."""
    return sum(node.op_type == "DequantizeLinear" for node in model.graph.node)
