"""Strict reading and writing of weights in the authors' released format."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.network.state_dict import read_state_dict
from ssdiff_trt.runtime.bundle.store import (
    CHECKPOINT,
    GRAPH_CONSTANT,
    TRANSPOSED,
    is_bundle,
    open_bundle,
    shipped,
)
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.progress import Progress

# Module name here -> name in the released checkpoints, spelled as the authors do ("upsamle").
# The first match applies.
_RELEASED_NAMES = [
    (r"ms_skip\.0", r"upsample.upsamle.0"),
    (r"head\.(\d)", r"to_hrms.\1"),
    (r"time\.linear0", r"time_embed.0"),
    (r"time\.linear1", r"time_embed.2"),
    (r"stem_spatial\.conv", r"conv_pan2x_t"),
    (r"stem_spatial\.time\.linear", r"emb_layers_pan.1"),
    (r"stem_spatial\.norm", r"out_layers_pan.0"),
    (r"stem_spatial\.out", r"out_layers_pan.3"),
    (r"stem_spectral\.conv", r"conv_lms2x_t"),
    (r"stem_spectral\.time\.linear", r"emb_layers_lms.1"),
    (r"stem_spectral\.norm", r"out_layers_lms.0"),
    (r"stem_spectral\.out", r"out_layers_lms.3"),
    (r"fusions\.(\d)\.apfm\.norm1", r"fusformer\1.layers.0.0.fn.norm"),
    (r"fusions\.(\d)\.apfm\.(s[ae]\d)", r"fusformer\1.layers.0.0.fn.fn.\2"),
    (r"fusions\.(\d)\.apfm\.out", r"fusformer\1.layers.0.0.fn.fn.to_out.0"),
    (r"fusions\.(\d)\.apfm\.norm2", r"fusformer\1.layers.0.1.fn.norm"),
    (r"fusions\.(\d)\.apfm\.mlp\.0", r"fusformer\1.layers.0.1.fn.fn.net.0"),
    (r"fusions\.(\d)\.apfm\.mlp\.2", r"fusformer\1.layers.0.1.fn.fn.net.3"),
    (r"spatial\.(\d)\.(conv\d)", r"resblock\1.\2"),
    (r"spatial\.(\d)\.time\.linear", r"resblock\1.emb_layers.1"),
    (r"spatial\.(\d)\.norm", r"resblock\1.out_layers.0"),
    (r"spatial\.(\d)\.out", r"resblock\1.out_layers.3"),
    (r"downs\.(\d)\.conv0", r"down\1.conv.0"),
    (r"downs\.(\d)\.conv1", r"down\1.conv.2"),
    (r"downs\.(\d)\.conv2", r"down\1.conv.3"),
    (r"ups\.(\d)\.conv0", r"up\1.up1.0"),
    (r"ups\.(\d)\.conv1", r"up\1.conv"),
]
_UNUSED = re.compile(
    r"(raise_ms_dim|raise_pan_dim|conv_x_t|up\d\.up0|down\d\.maxpool_conv)\..+|.*\.num_batches_tracked"
)
"""Tensors that released checkpoints contain but the forward pass does not use."""


def released_name(name: str) -> str:
    """Name in a released checkpoint of a tensor of :class:`~ssdiff_ref.network.ssnet.SSNet`."""
    module, _, tensor = name.rpartition(".")
    for pattern, released in _RELEASED_NAMES:
        if match := re.fullmatch(pattern, module):
            return f"{match.expand(released)}.{tensor}"
    raise KeyError(name)


def weights_file(path: str | Path) -> Path:
    """Path of a weights file: ``path`` itself, or the checkpoint if it is a bundle or its name.

    Raises:
        SSDiffError: if there is none, or the bundle is invalid.
    """
    if not is_bundle(path):
        if not os.path.isfile(path):  # False for a name that cannot be one
            raise InputError(
                f"There is no weights file {path}, and no bundle of that name; those that come "
                f"along are {' and '.join(shipped())}."
            )
        return Path(path)
    bundle = open_bundle(path)
    if CHECKPOINT not in bundle.manifest.files:
        raise InputError(
            f"The bundle {path} contains no {CHECKPOINT}; export it again, or give the weights "
            "that it was exported from."
        )
    return bundle.path / CHECKPOINT


@dataclass(frozen=True)
class Checkpoint:
    """A network with weights loaded from a file."""

    net: SSNet
    """Network in evaluation mode, float32, on the CPU."""
    unused: tuple[str, ...]
    """Names of tensors in the file that the forward pass does not use."""
    path: Path
    """The file."""
    key: str
    """Where in the file the weights are, such as ``ema.module``; empty if it has nothing else."""

    def describe(self, progress: Progress) -> None:
        """Note where in the file the weights are, and which tensors are not used."""
        if self.key:
            progress.note(f"{self.path}: the weights are those under {self.key}")
        if self.unused:
            unused = counted(len(self.unused), "tensor")
            progress.note(f"{self.path}: the network does not use {unused}")
            progress.detail(", ".join(self.unused))


def load_checkpoint(path: str | Path, weights_key: str | None = None) -> Checkpoint:
    """Read weights in the released format; the number of bands is taken from the file.

    Args:
        path: ``.safetensors``, a PyTorch file (read with ``weights_only``), or a bundle. The state
            dict may be inside dictionaries, beside other entries, and its names may have a prefix
            such as ``module.``.
        weights_key: where in the file the weights are, such as ``ema`` or ``ema.module``; needed if
            there are several.

    Raises:
        SSDiffError: if the file cannot be read, or a tensor is missing, unknown, has a wrong
            shape, type or non-finite values; the message names the tensor.
    """
    path, skip = weights_file(path), released_name("ms_skip.0.weight")
    found = read_state_dict(path, skip, weights_key)
    tensors = {
        name.removeprefix(TRANSPOSED): tensor.T if name.startswith(TRANSPOSED) else tensor
        for name, tensor in found.tensors.items()
        if not name.startswith(GRAPH_CONSTANT)
    }
    if tensors[skip].ndim != 4 or not tensors[skip].shape[1]:
        raise InputError(
            f"In {path}, tensor {skip} has shape {list(tensors[skip].shape)}, expected 4 "
            "dimensions, the second of them the number of bands; it is not an SSDiff checkpoint."
        )
    net = SSNet(bands=tensors[skip].shape[1])
    state = net.state_dict()
    expected_names = {released_name(name): name for name in state if not _UNUSED.fullmatch(name)}
    unused = tuple(
        name for name in tensors if name not in expected_names and _UNUSED.fullmatch(name)
    )
    missing = [name for name in expected_names if name not in tensors]
    unknown = [name for name in tensors if name not in expected_names and name not in unused]
    for fault, names in (("lacks", missing), ("has the unknown", unknown)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path} {fault} tensor {names[0]}{more}.")
    for name, own_name in expected_names.items():
        shape, expected = list(tensors[name].shape), list(state[own_name].shape)
        if shape != expected:
            raise InputError(f"In {path}, tensor {name} has shape {shape}, expected {expected}.")
        if not tensors[name].is_floating_point():
            dtype = str(tensors[name].dtype).removeprefix("torch.")
            raise InputError(
                f"In {path}, tensor {name} is in {dtype}, expected floating point; give the "
                "weights as they were trained, not quantised."
            )
        state[own_name] = tensors[name].to_dense().float()
        if not state[own_name].isfinite().all():
            raise InputError(f"In {path}, tensor {name} has non-finite values.")
    net.load_state_dict(state)
    return Checkpoint(net.eval(), (*unused, *found.beside), path, found.key)


def released_tensors(net: SSNet) -> dict[str, Tensor]:
    """Weights of ``net`` by released name, float32, on the CPU."""
    return {
        released_name(name): tensor.detach().float().contiguous().cpu()
        for name, tensor in net.state_dict().items()
        if not _UNUSED.fullmatch(name)
    }


def save_checkpoint(net: SSNet, path: str | Path) -> None:
    """Write the weights of ``net`` as ``.safetensors``, float32, under released names."""
    save_file(released_tensors(net), path)
