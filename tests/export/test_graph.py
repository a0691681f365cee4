"""The file of constants that the graphs of one precision share."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession

from ssdiff_ref.network.checkpoint import released_tensors
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export.graph import WeightsFile, _contrib_attention


def model_of(constants):
    """A graph without inputs that returns its constants."""
    names = [f"constant{k}" for k in range(len(constants))]
    outputs = [
        helper.make_tensor_value_info(
            f"{name}_out", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(names, constants, strict=True)
    ]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]
    initializers = [
        numpy_helper.from_array(array, name) for name, array in zip(names, constants, strict=True)
    ]
    graph = helper.make_graph(nodes, "constants", [], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_equal_bytes_in_two_dtypes_do_not_share_an_entry(tmp_path):
    """In a network of zeros, tensors of one byte count are equal in FP16 and in FP32."""
    net = SSNet(4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    constants = [
        np.zeros(shape, dtype)
        for shape in sorted({tuple(tensor.shape) for tensor in released_tensors(net).values()})
        for dtype in (np.float16, np.float32)
        if np.prod(shape) * np.dtype(dtype).itemsize > 1024
    ]
    weights = WeightsFile(tmp_path / "weights.fp16.safetensors", net, "fp16")
    model = model_of(constants)
    weights.add(model)
    weights.write()
    onnx.save(model, tmp_path / "constants.onnx")
    session = InferenceSession(tmp_path / "constants.onnx", providers=["CPUExecutionProvider"])
    for found, expected in zip(session.run(None, {}), constants, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_attention_as_an_operator_gives_what_is_like_its_queries():
    query, key = torch.rand(2, 5, 32), torch.rand(2, 7, 32)
    given = _contrib_attention(query, key, key)
    assert (given.shape, given.dtype) == (query.shape, query.dtype)
