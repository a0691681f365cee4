"""From the PyTorch network to an ONNX graph."""

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
from ssdiff_trt.runtime.bundle.manifest import Form, Model, Precision, Role, graph_io
from ssdiff_trt.runtime.bundle.store import GRAPH_CONSTANT, TRANSPOSED

if TYPE_CHECKING:
    import onnx
    import torch

ATTENTION: dict[Form, AttentionForm] = {
    "portable": "materialised",
    "fused": "fused",
    "contrib": "fused",
}
"""How attention is written in each form of the graph; ``contrib`` replaces it once more."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPERS = ("denoiser", "net", "module")
_LARGEST_INLINE = 1024  # bytes; shape constants stay inside the graph, where parsers want them


def opset(form: Form, precision: Precision) -> int:
    """The lowest that has what the graph needs.

    Attention came with 23, convolutions in BF16 with 22, and with 19 the Q/DQ in FP16 that INT8
    adds to graphs in FP16.
    """
    if form == "fused":
        return 23
    return {"fp32": 18, "fp16": 19, "int8": 19, "bf16": 22}[precision]


def in_form(net: SSNet, form: Form) -> SSNet:
    """The same weights as they are exported: without an FFT, with attention of that form."""
    twin = SSNet(net.bands, fmim="matmul", attention=ATTENTION[form]).eval()
    twin.load_state_dict(net.state_dict())
    return twin


def _contrib_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention as ONNX Runtime's own operator; replaces that of ``APFM`` during an export.

    It takes tokens as they are, ``[N, n, C]``, and on the CPU works in blocks that fit the cache.
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
    """Export the per-step denoiser, or a whole step, batch dynamic and tile size static."""
    import torch

    specs, (output,) = graph_io(role, Model(bands=net.bands, tile=tile))
    batch = torch.export.Dim("batch", min=1)
    batched = {spec.name: spec.shape[0] == "batch" for spec in specs}
    inputs = tuple(
        torch.zeros([2 if size == "batch" else size for size in spec.shape]) for spec in specs
    )
    denoiser = Lowered(in_form(net, form), precision).eval()
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
            input_names=list(batched),
            output_names=[output.name],
            dynamic_shapes={name: {0: batch} if has else None for name, has in batched.items()},
        )
    assert program is not None
    model = program.model_proto
    name_by_module(model)
    return model


def name_by_module(model: onnx.ModelProto) -> None:
    """Name nodes by what they compute: ``fusions.0.apfm.sa1/MatMul``, the same in every graph."""
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "['']")
        *modules, _ = ast.literal_eval(scopes)
        # Islands and steps wrap modules of the network, whose names count.
        inside = [part for part in (modules or [""])[-1].split(".") if part not in _WRAPPERS]
        name = f"{'.'.join(inside) or 'step'}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def strip(model: onnx.ModelProto) -> None:
    """Remove what tells of the machine that exported: paths, stack traces, types of values."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


class _Stored(NamedTuple):
    """A tensor as the file has it."""

    dtype: str
    shape: list[int]
    content: bytes


_NAMES = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16"}


def _stored(tensor: torch.Tensor) -> _Stored:
    import torch

    content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return _Stored(_NAMES[str(tensor.dtype)], list(tensor.shape), content)


class WeightsFile:
    """The constants of several graphs in one ``.safetensors``, each once.

    Weights have their released names, those that graphs have transposed are ``transposed.NAME``,
    other large constants ``graph.N``. In FP32 all weights are there, so that the file is a
    checkpoint too.

    Args:
        path: where to write it; graphs must be saved beside it.
        net: whose weights the graphs have.
        precision: of the graphs.
    """

    def __init__(self, path: Path, net: SSNet, precision: Precision) -> None:
        self.path = path
        self._weights = released_tensors(net) if precision == "fp32" else {}
        self._tensors: dict[str, _Stored] = {}
        self._known: dict[bytes, tuple[str, _Stored]] = {}
        self._referring: list[tuple[onnx.TensorProto, str]] = []
        for name, tensor in released_tensors(net).items():
            for lowered in dict.fromkeys((DTYPES[precision], DTYPES["fp32"])):
                self._know(name, tensor.to(lowered))
                if tensor.ndim == 2:
                    self._know(f"{TRANSPOSED}{name}", tensor.T.contiguous().to(lowered))

    def _know(self, name: str, tensor: torch.Tensor) -> None:
        stored = _stored(tensor)
        self._known[hashlib.sha256(stored.content).digest()] = name, stored

    def take(self, model: onnx.ModelProto) -> None:
        """Take the large tensors of a graph, which is to be saved after :meth:`write`."""
        for tensor in model.graph.initializer:
            content = tensor.raw_data
            if len(content) <= _LARGEST_INLINE:
                continue
            constant = (
                f"{GRAPH_CONSTANT}{len(self._tensors)}",
                _Stored("U8", [len(content)], content),
            )
            digest = hashlib.sha256(content).digest()
            name, stored = self._known.setdefault(digest, constant)
            # Tensors of zeros are equal across names and dtypes, so one name may stand for two
            # contents, its FP16 and its FP32 values; the second one gets an entry of its own.
            if self._tensors.get(name, stored) != stored:
                name, stored = self._known[digest] = constant
            self._tensors[name] = stored
            self._referring.append((tensor, name))

    def write(self) -> None:
        """Write the file, and replace what the graphs hold by references to it."""
        from onnx.external_data_helper import set_external_data

        for name, tensor in self._weights.items():
            if not {name, f"{TRANSPOSED}{name}"} & set(self._tensors):
                self._tensors[name] = _stored(tensor)
        # Whole multiples of 64 bytes first: all of them begin at one, and can be mapped.
        order = sorted(self._tensors, key=lambda name: len(self._tensors[name].content) % 64 != 0)
        header, places, end = {}, {}, 0
        for name in order:
            dtype, shape, content = self._tensors[name]
            places[name] = end, len(content)
            header[name] = {
                "dtype": dtype,
                "shape": shape,
                "data_offsets": [end, end + len(content)],
            }
            end += len(content)
        told = json.dumps(header, separators=(",", ":")).encode()
        told += b" " * (-(8 + len(told)) % 64)
        with self.path.open("wb") as file:
            file.write(struct.pack("<Q", len(told)) + told)
            file.writelines(self._tensors[name].content for name in order)
        for reference, name in self._referring:
            offset, length = places[name]
            set_external_data(reference, self.path.name, 8 + len(told) + offset, length)
            reference.ClearField("raw_data")
