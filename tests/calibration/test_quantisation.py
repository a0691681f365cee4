"""Scales of quantised layers, on a small graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ssdiff_trt.calibration.quantisation import count_qdq_pairs, quantise, with_activation_types
from ssdiff_trt.runtime.backends.onnxruntime import open_session

CONV, MATMUL = "spatial.0.conv1/Conv", "fusions.0.apfm.se1/MatMul"
LARGEST = {CONV: 6.35, MATMUL: 2.54}


@pytest.fixture(scope="module")
def weights():
    """Weights whose output channels, 3 of each layer, differ in magnitude by factors of 10."""
    rng = np.random.default_rng(0)
    conv = rng.uniform(0.5, 1, (3, 2, 1, 1)) * np.array([1, 10, 100]).reshape(3, 1, 1, 1)
    matmul = rng.uniform(0.5, 1, (5, 3)) * [1, 10, 100]
    return {CONV: conv.astype(np.float32), MATMUL: matmul.astype(np.float32)}


@pytest.fixture(scope="module")
def model(weights):
    """A convolution and a product with a matrix, each with an input of its own."""
    shapes = {CONV: ([1, 2, 4, 4], [1, 3, 4, 4]), MATMUL: ([1, 7, 5], [1, 7, 3])}
    nodes, inputs, outputs, constants = [], [], [], []
    for name, (shape, result) in shapes.items():
        x, w, y = f"{name}_x", f"{name}_w", f"{name}_y"
        nodes.append(helper.make_node(name.partition("/")[2], [x, w], [y], name=name))
        inputs.append(helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, shape))
        outputs.append(helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, result))
        constants.append(numpy_helper.from_array(weights[name], w))
    graph = helper.make_graph(nodes, "layers", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


@pytest.mark.parametrize(("name", "inner"), [(CONV, (1, 2, 3)), (MATMUL, 0)])
def test_weights_have_a_scale_for_each_output_channel_and_inputs_have_one(
    model, weights, name, inner
):
    quantised = quantise(model, LARGEST, ["spatial.0", "fusions.0.projections"])
    scales = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in quantised.graph.initializer
        if tensor.name.endswith("_scale")
    }
    expected = np.abs(weights[name]).max(axis=inner) / 127
    np.testing.assert_allclose(scales[f"{name}_w_scale"], expected, rtol=1e-6)
    assert scales[f"{name}_x_scale"] == pytest.approx(LARGEST[name] / 127)
    assert len(scales) == count_qdq_pairs(quantised) == 4  # no outputs


def test_no_channel_loses_more_than_half_a_step_of_its_own_scale(model, weights):
    """Under one scale for all channels, the weakest would keep less than one of 127 steps."""
    quantised = quantise(model, LARGEST, ["fusions.0.projections"])
    assert count_qdq_pairs(quantised) == 2
    session = open_session(quantised.SerializeToString(), integers=False)
    inputs = {f"{CONV}_x": np.zeros((1, 2, 4, 4), np.float32)}
    inputs[f"{MATMUL}_x"] = np.pad(np.eye(5, dtype=np.float32), ((0, 2), (0, 0)))[None] * 2.54
    (found,) = session.run([f"{MATMUL}_y"], inputs)
    step = np.abs(weights[MATMUL]).max(axis=0) / 127
    assert (np.abs(found[0, :5] / 2.54 - weights[MATMUL]) <= 0.51 * step).all()


@pytest.mark.parametrize(("dtype", "code"), [(np.float32, 1), (np.float16, 10)])
def test_the_types_of_inputs_are_declared_as_those_of_the_weights(model, dtype, code):
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    for tensor in typed.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name)
        )
    declared = with_activation_types(typed).graph.value_info
    assert {(v.name, v.type.tensor_type.elem_type) for v in declared} == {
        (f"{name}_x", code) for name in (CONV, MATMUL)
    }
    assert not typed.graph.value_info  # the copy alone has them
