"""ONNX export of the PyTorch network."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import struct
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ssdiff_ref.network.apfm import APFM, HEAD_WIDTH, AttentionForm
from ssdiff_ref.network.checkpoint import released_tensors
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export.precision import DTYPES, Lowered, Step
from ssdiff_trt.runtime.bundle.manifest import Form, Model, Role, graph_io
from ssdiff_trt.runtime.bundle.store import GRAPH_CONSTANT, TRANSPOSED
from ssdiff_trt.runtime.options import Precision

if TYPE_CHECKING:
    import onnx
    import torch

ATTENTION: dict[Form, AttentionForm] = {
    "portable": "materialised",
    "fused": "fused",
    "contrib": "fused",
}
"""How the exported network computes attention, by form of the graph.

``contrib`` starts from the fused attention and replaces it with :func:`_contrib_attention`.
"""
_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPERS = ("denoiser", "net", "module")
"""Attribute names by which the modules of an export hold the network, or modules of it."""
_MAX_INLINE_BYTES = 1024  # shape constants stay inside the graph, where parsers need them


def opset(form: Form, precision: Precision) -> int:
    """The lowest ONNX opset with all operators of a graph.

    Attention needs 23, convolution in BF16 needs 22, and Q/DQ in FP16, which INT8 adds to FP16
    graphs, needs 19.
    """
    if form == "fused":
        return 23
    return {"fp32": 18, "fp16": 19, "int8": 19, "bf16": 22}[precision]


def network_for_export(net: SSNet, form: Form) -> SSNet:
    """A copy of the network with the FFT as matrix products and attention in the given form."""
    exportable = SSNet(net.bands, fmim="matmul", attention=ATTENTION[form]).eval()
    exportable.load_state_dict(net.state_dict())
    return exportable


def _contrib_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention as an operator of ONNX Runtime; replaces that of ``APFM`` during an export.

    The operator takes tokens in the layout of the network, ``[N, n, C]``, and its CPU
    implementation works in blocks that fit the cache.
    """
    import torch

    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (q, k, v),
        {"num_heads": q.shape[-1] // HEAD_WIDTH},
        dtype=q.dtype,
        shape=q.shape,
        version=1,
    )


def export_graph(
    net: SSNet, role: Role, precision: Precision, form: Form, tile: int
) -> onnx.ModelProto:
    """Export the denoiser or a whole sampling step, with dynamic batch and static tile size.

    Args:
        net: the network, in evaluation mode.
        role: ``denoiser`` or ``step``.
        precision: of the weights and the arithmetic; inputs and outputs are FP32.
        form: how attention is written.
        tile: height and width of a tile in pixels of PAN.
    """
    import torch

    specs, (output,) = graph_io(role, Model(bands=net.bands, tile=tile))
    batch = torch.export.Dim("batch", min=1)
    has_batch = {spec.name: spec.shape[0] == "batch" for spec in specs}
    inputs = tuple(
        torch.zeros([2 if size == "batch" else size for size in spec.shape]) for spec in specs
    )
    denoiser = Lowered(network_for_export(net, form), precision).eval()
    if form == "contrib":
        for module in denoiser.modules():
            if isinstance(module, APFM):
                module.attend = _contrib_attention
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            denoiser if role == "denoiser" else Step(denoiser),
            inputs,
            dynamo=True,
            verbose=False,
            opset_version=opset(form, precision),
            input_names=list(has_batch),
            output_names=[output.name],
            dynamic_shapes={
                name: {0: batch} if dynamic else None for name, dynamic in has_batch.items()
            },
        )
    assert program is not None
    model = program.model_proto
    name_nodes(model)
    return model


def name_nodes(model: onnx.ModelProto) -> None:
    """Name nodes ``MODULE/OPERATOR``, such as ``fusions.0.apfm.sa1/MatMul``.

    The names are the same in the graphs of all precisions and roles.
    """
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "['']")
        *modules, _ = ast.literal_eval(scopes)
        path = [part for part in (modules or [""])[-1].split(".") if part not in _WRAPPERS]
        name = f"{'.'.join(path) or 'step'}/{node.op_type}"
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove source paths, stack traces and the types of intermediate values, in place."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


class _Stored(NamedTuple):
    """A tensor as ``.safetensors`` stores it: type, shape and raw bytes."""

    dtype: str
    shape: list[int]
    content: bytes


_SAFETENSORS_DTYPES = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16"}


def _stored(tensor: torch.Tensor) -> _Stored:
    import torch

    content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return _Stored(_SAFETENSORS_DTYPES[str(tensor.dtype)], list(tensor.shape), content)


class WeightsFile:
    """Writes the constants of several graphs to one ``.safetensors`` file, each of them once.

    Weights are stored under their released names, weights that graphs hold transposed under
    ``transposed.NAME``, other large constants under ``graph.N``. An FP32 file has all weights, so
    that it is also a checkpoint.

    Args:
        path: file to write; the graphs must be saved in the same directory.
        net: the network that the graphs were exported from.
        precision: of the graphs.
    """

    def __init__(self, path: Path, net: SSNet, precision: Precision) -> None:
        self.path = path
        self._weights = released_tensors(net) if precision == "fp32" else {}
        self._entries: dict[str, _Stored] = {}
        self._by_digest: dict[bytes, tuple[str, _Stored]] = {}
        self._references: list[tuple[onnx.TensorProto, str]] = []
        for name, tensor in released_tensors(net).items():
            for dtype in dict.fromkeys((DTYPES[precision], DTYPES["fp32"])):
                self._register(name, tensor.to(dtype))
                if tensor.ndim == 2:
                    self._register(f"{TRANSPOSED}{name}", tensor.T.contiguous().to(dtype))

    def _register(self, name: str, tensor: torch.Tensor) -> None:
        stored = _stored(tensor)
        self._by_digest[hashlib.sha256(stored.content).digest()] = name, stored

    def add(self, model: onnx.ModelProto) -> None:
        """Add the large constants of a graph; save the graph after :meth:`write`."""
        for tensor in model.graph.initializer:
            content = tensor.raw_data
            if len(content) <= _MAX_INLINE_BYTES:
                continue
            unnamed = (
                f"{GRAPH_CONSTANT}{len(self._entries)}",
                _Stored("U8", [len(content)], content),
            )
            digest = hashlib.sha256(content).digest()
            name, stored = self._by_digest.setdefault(digest, unnamed)
            # Tensors of zeros are equal across names and dtypes, so one name may stand for two
            # contents, its FP16 and its FP32 values; the second one gets an entry of its own.
            if self._entries.get(name, stored) != stored:
                name, stored = self._by_digest[digest] = unnamed
            self._entries[name] = stored
            self._references.append((tensor, name))

    def write(self) -> None:
        """Write the file and turn the constants of the graphs into references to it."""
        from onnx.external_data_helper import set_external_data

        for name, tensor in self._weights.items():
            if not {name, f"{TRANSPOSED}{name}"} & set(self._entries):
                self._entries[name] = _stored(tensor)
        # Entries whose size is a multiple of 64 bytes go first, so that all of these are aligned
        # to 64 bytes and can be memory-mapped.
        order = sorted(self._entries, key=lambda name: len(self._entries[name].content) % 64 != 0)
        entries, spans, end = {}, {}, 0
        for name in order:
            dtype, shape, content = self._entries[name]
            spans[name] = end, len(content)
            entries[name] = {
                "dtype": dtype,
                "shape": shape,
                "data_offsets": [end, end + len(content)],
            }
            end += len(content)
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-(8 + len(header)) % 64)
        with self.path.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.writelines(self._entries[name].content for name in order)
        for reference, name in self._references:
            offset, length = spans[name]
            set_external_data(reference, self.path.name, 8 + len(header) + offset, length)
            reference.ClearField("raw_data")
