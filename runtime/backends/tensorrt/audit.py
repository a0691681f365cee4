"""The types of layers, in a network that TensorRT has parsed and in the engine built from it.

Networks are strongly typed, so the graph determines the precision, and a graph in another precision
than was asked for is built without a word.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.options import Precision

_TYPES: dict[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "HALF"}
"""TensorRT type of the heavy layers, by precision. INT8 graphs have FP16 layers between Q/DQ."""
_HEAVY = ("CONVOLUTION", "ATTENTION_INPUT", "SOFTMAX")
"""Layer kinds that must have the precision of the graph."""
_SPELLINGS = {
    "float": "FLOAT",
    "fp32": "FLOAT",
    "half": "HALF",
    "fp16": "HALF",
    "bfloat16": "BF16",
    "bf16": "BF16",
    "int8": "INT8",
}
"""TensorRT types by the words, in lower case, that its reports have for them."""


def audit_network(network: Any, precision: Precision) -> dict[str, int]:
    """Count the layers of a parsed network by kind and type, and check their types.

    Raises:
        SSDiffError: if a heavy layer does not have the precision, or an input or output is not in
            FP32.
    """
    expected = _TYPES[precision]
    layers: Counter[str] = Counter()
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        kind = layer.type.name
        if not layer.num_outputs:
            continue
        dtype = layer.get_output(0).dtype.name
        layers[f"{kind} {dtype}"] += 1
        if kind in _HEAVY and dtype != expected:
            raise BackendError(
                f"The layer {layer.name} ({kind}) is in {dtype}, expected {expected} in a graph of "
                f"{precision}; export the bundle again."
            )
    if precision == "int8" and not layers["QUANTIZE INT8"]:
        raise BackendError(
            "The int8 graph has no QuantizeLinear layer, expected Q/DQ pairs; export the bundle "
            "again."
        )
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    for tensor in tensors:
        if tensor.dtype.name != "FLOAT":
            raise BackendError(
                f"{tensor.name} is in {tensor.dtype.name}, expected FLOAT; export the bundle again."
            )
    return dict(layers)


def audit_engine(report: str, precision: Precision) -> dict[str, int]:
    """Count the outputs of an engine's layers by type, and its fused attention layers.

    Args:
        report: JSON of the engine inspector.
        precision: precision that the engine was built for.

    Raises:
        SSDiffError: if the report has types, and none of them is that of the precision.
    """
    expected = "INT8" if precision == "int8" else _TYPES[precision]
    counts: Counter[str] = Counter()
    for layer in json.loads(report).get("Layers", []):
        counts["fused attention"] += "mha" in str(layer).lower()
        outputs = layer.get("Outputs", []) if isinstance(layer, Mapping) else []
        counts.update(name for output in outputs if (name := _type_of(output)))
    types = sorted(set(counts) & set(_SPELLINGS.values()))
    if types and expected not in types:
        raise BackendError(
            f"The engine has no layer in {precision}, only in {', '.join(types)}; build it again, "
            "or choose another `precision`."
        )
    return dict(counts)


def _type_of(tensor: Mapping[str, Any]) -> str | None:
    """Type of a tensor in a report, if it is one of those above.

    The type is a word of ``Format/Datatype`` ("Channel major FP16 format where channel % 8 == 0"),
    or, in TensorRT 11 and TensorRT-RTX, the whole of ``Datatype``.
    """
    for key, value in tensor.items():
        if key.lower().endswith("datatype"):
            words = re.findall(r"\w+", str(value).lower())
            return next((_SPELLINGS[word] for word in words if word in _SPELLINGS), None)
    return None
