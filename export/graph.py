"""From the PyTorch network to an ONNX graph."""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runtime.bundle import Form, denoiser_io
from ssdiff_ref.apfm import AttentionForm
from ssdiff_ref.checkpoint import GRAPH_CONSTANT, TRANSPOSED, released_tensors
from ssdiff_ref.network import SSNet

if TYPE_CHECKING:
    import onnx
    import torch

ATTENTION: dict[Form, AttentionForm] = {"portable": "materialised", "fused": "fused"}
"""How attention is written in each form of the graph."""
OPSET: dict[Form, int] = {"portable": 18, "fused": 23}
_LARGEST_INLINE = 1024  # bytes; shape constants stay inside the graph, where parsers want them


def in_form(net: SSNet, form: Form) -> SSNet:
    """The same weights as they are exported: without an FFT, with attention of that form."""
    twin = SSNet(net.bands, fmim="matmul", attention=ATTENTION[form]).eval()
    twin.load_state_dict(net.state_dict())
    return twin


def denoiser_graph(net: SSNet, form: Form, tile: int) -> onnx.ModelProto:
    """Export the per-step denoiser, batch dynamic and tile size static."""
    import torch

    specs, (output,) = denoiser_io(net.bands, tile)
    batch = torch.export.Dim("batch", min=1)
    inputs = tuple(torch.zeros([2, *map(int, spec.shape[1:])]) for spec in specs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            in_form(net, form),
            inputs,
            dynamo=True,
            verbose=False,
            opset_version=OPSET[form],
            input_names=[spec.name for spec in specs],
            output_names=[output.name],
            dynamic_shapes={spec.name: {0: batch} for spec in specs},
        )
    assert program is not None
    return program.model_proto


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


class WeightsFile:
    """The weights of a network and of its graphs in one ``.safetensors``, each tensor once.

    Weights have their released names, so that the file is a checkpoint too. Those that graphs have
    transposed are ``transposed.NAME``, other large constants of theirs ``graph.N``.

    Args:
        path: where to write it; graphs must be saved beside it.
        net: whose weights the graphs have.
    """

    def __init__(self, path: Path, net: SSNet) -> None:
        self.path = path
        self._weights = released_tensors(net)
        self._tensors: dict[str, _Stored] = {}
        self._known: dict[bytes, tuple[str, _Stored]] = {}
        self._referring: list[tuple[onnx.TensorProto, str]] = []
        for name, tensor in self._weights.items():
            self._know(name, tensor)
            if tensor.ndim == 2:
                self._know(f"{TRANSPOSED}{name}", tensor.T.contiguous())

    def _know(self, name: str, tensor: torch.Tensor) -> None:
        content = tensor.numpy().tobytes()
        stored = _Stored("F32", list(tensor.shape), content)
        self._known[hashlib.sha256(content).digest()] = name, stored

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
            name, stored = self._known.setdefault(hashlib.sha256(content).digest(), constant)
            self._tensors[name] = stored
            self._referring.append((tensor, name))

    def write(self) -> None:
        """Write the file, and replace what the graphs hold by references to it."""
        from onnx.external_data_helper import set_external_data

        for name, tensor in self._weights.items():
            if not {name, f"{TRANSPOSED}{name}"} & set(self._tensors):
                content = tensor.numpy().tobytes()
                self._tensors[name] = _Stored("F32", list(tensor.shape), content)
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
