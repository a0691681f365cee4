"""Checks of the types of layers, in networks and in engines."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.backends.tensorrt.audit import audit_engine, audit_network
from ssdiff_trt.runtime.errors import SSDiffError


def network(*layers, inputs=()):
    """Fake of a parsed network with layers given as (kind, type) pairs."""

    def tensor(dtype, name="x"):
        return SimpleNamespace(dtype=SimpleNamespace(name=dtype), name=name)

    listed = [
        SimpleNamespace(
            name=f"layer {i}",
            type=SimpleNamespace(name=kind),
            num_outputs=1,
            get_output=lambda j, dtype=dtype: tensor(dtype),
        )
        for i, (kind, dtype) in enumerate(layers)
    ]
    return SimpleNamespace(
        num_layers=len(listed),
        get_layer=lambda i: listed[i],
        num_inputs=len(inputs),
        get_input=lambda i: tensor(inputs[i], "pan"),
        num_outputs=0,
    )


def test_a_network_with_a_heavy_layer_in_another_precision_is_refused():
    sound = network(("CONVOLUTION", "HALF"), ("NORMALIZATION", "FLOAT"), inputs=("FLOAT",))
    assert audit_network(sound, "fp16") == {"CONVOLUTION HALF": 1, "NORMALIZATION FLOAT": 1}
    with pytest.raises(SSDiffError, match=r"layer 1 \(CONVOLUTION\) is in FLOAT, expected HALF"):
        audit_network(network(("SOFTMAX", "HALF"), ("CONVOLUTION", "FLOAT")), "fp16")
    with pytest.raises(SSDiffError, match="pan is in HALF, expected FLOAT"):
        audit_network(network(inputs=("HALF",)), "fp16")


def report(*types, key="Format/Datatype"):
    """A report of the engine inspector with one output of each type."""
    return json.dumps({"Layers": [{"Outputs": [{"Name": "x", key: t}]} for t in types]})


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Float", "FLOAT"),
        ("Row major linear FP32", "FLOAT"),
        ("Half", "HALF"),
        ("Row major linear FP16 format", "HALF"),
        ("Channel major FP16 format where channel % 8 == 0", "HALF"),
        ("BFloat16", "BF16"),
        ("Row major linear BFloat16 format", "BF16"),
        ("Two wide channel vectorized row major BFloat16 format", "BF16"),
        ("Int8", "INT8"),
        ("Channel major INT8 format where channel % 16 == 0", "INT8"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "INT8"),
    ],
)
@pytest.mark.parametrize("key", ["Format/Datatype", "Datatype", "DataType"])
def test_a_type_is_known_in_every_spelling_and_under_every_key(spelling, name, key):
    precision = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}[name]
    counts = audit_engine(report(spelling, "Row major linear BOOL", "Int32", key=key), precision)
    assert counts == {name: 1, "fused attention": 0}


def test_an_engine_without_a_layer_in_its_precision_is_refused():
    sound = {"HALF": 1, "FLOAT": 1, "fused attention": 0}
    assert audit_engine(report("Half", "Row major linear FP32"), "fp16") == sound
    for others, named in ((("Float",), "FLOAT"), (("BFloat16", "Float"), "BF16, FLOAT")):
        with pytest.raises(SSDiffError, match=rf"no layer in fp16, only in {named}; build"):
            audit_engine(report(*others), "fp16")
    with pytest.raises(SSDiffError, match="no layer in fp32, only in BF16; build"):
        audit_engine(report("BFloat16"), "fp32")


def test_a_report_without_types_is_not_refused():
    assert audit_engine('{"Layers": ["_gemm_mha_v2_0x1f"]}', "fp16") == {"fused attention": 1}
