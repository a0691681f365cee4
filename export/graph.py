"""From the PyTorch network to an ONNX graph."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import Form, denoiser_io
from ssdiff_ref.apfm import AttentionForm
from ssdiff_ref.network import SSNet

if TYPE_CHECKING:
    import onnx

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


class WeightsFile:
    """The weights of several graphs in one file, each tensor once.

    Args:
        path: where to write it; graphs must be saved beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = bytearray()
        self._offsets: dict[bytes, int] = {}

    def take(self, model: onnx.ModelProto) -> None:
        """Move the large tensors of a graph here; the graph keeps references."""
        from onnx.external_data_helper import set_external_data

        for tensor in model.graph.initializer:
            content = tensor.raw_data
            if len(content) <= _LARGEST_INLINE:
                continue
            key = hashlib.sha256(content).digest()
            if key not in self._offsets:
                self._content.extend(bytes(-len(self._content) % 64))  # aligned, to be mapped
                self._offsets[key] = len(self._content)
                self._content.extend(content)
            set_external_data(
                tensor, self.path.name, offset=self._offsets[key], length=len(content)
            )
            tensor.ClearField("raw_data")

    def write(self) -> None:
        self.path.write_bytes(self._content)
