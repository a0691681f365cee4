"""Operators of the portable graphs, which TensorRT 10.3 must parse."""

from __future__ import annotations

import onnx
import pytest

OPERATORS = {
    "Add",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "Cos",
    "DepthToSpace",
    "DequantizeLinear",
    "Gemm",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "MatMul",
    "Mul",
    "Not",
    "Or",
    "QuantizeLinear",
    "Reshape",
    "Sigmoid",
    "Sin",
    "Slice",
    "Softmax",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
}
"""Operators of the list that the ONNX parser of TensorRT 10.3 publishes, as far as they are needed.

GroupNormalization, from opset 21 on, and Attention are parsed by later versions only.
"""


@pytest.mark.parametrize(
    ("precision", "newest"),
    [("fp32", 20), ("fp16", 20), ("int8", 20), ("bf16", 22)],  # 22 is parsed from 10.6 on
)
def test_portable_graphs_have_operators_and_opsets_of_the_list(request, precision, newest):
    bundle = request.getfixturevalue("int8" if precision == "int8" else "low4")
    graph = bundle.graph("step", precision, "portable")
    model = onnx.load(bundle.path / graph.file, load_external_data=False)
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    ((domain, version),) = ((entry.domain, entry.version) for entry in model.opset_import)
    assert domain == ""
    assert version == graph.opset <= newest
