"""Half precision with FP32 islands, written into the network and so into its graphs.

TensorRT 11 and every strongly typed build take precision from the graph, and converters of finished
graphs get it wrong. Here the network itself is lowered: weights, convolutions and products of
matrices in FP16 or BF16; what :data:`ISLANDS` names in FP32, and so are inputs, outputs, the
timestep and all that the sampler does.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ssdiff_ref.network.fmim import FMIM
from ssdiff_ref.network.ssnet import SSNet, TimeBias, TimeEmbedding
from ssdiff_trt.runtime.bundle.manifest import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
ISLANDS: dict[type[nn.Module], str] = {
    nn.LayerNorm: "statistics of a token are differences of nearly equal squares",
    nn.GroupNorm: "statistics run over thousands of pixels",
    nn.BatchNorm2d: "stored statistics lose their last digits",
    FMIM: "sums run over all pixels of a tile",
    TimeEmbedding: "cosines of timesteps up to 999",
    TimeBias: "biases are made from the time embedding",
}
"""What stays in FP32, and why."""


_CONSTANT = ("masked_fill",)
"""What puts constants in place, and computes nothing that could outgrow a precision."""


class Island(nn.Module):
    """A module in FP32 amid lower precision; the result has the precision of the first input."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, feature: Tensor, *others: Tensor) -> Tensor:
        result: Tensor = self.module(feature.float(), *others)
        return result.to(feature.dtype)


class ShuffledConvolution(nn.Conv2d):
    """A transposed convolution as a product of matrices and a shuffle of pixels.

    It is the same where the stride is the kernel's size. TensorRT-RTX has no transposed convolution
    in BF16, and INT8 is for convolutions.
    """

    def __init__(self, transposed: nn.ConvTranspose2d) -> None:
        weight, bias = transposed.weight.detach(), transposed.bias
        assert bias is not None
        self.ratio = int(transposed.stride[0])
        super().__init__(weight.shape[0], weight.shape[1] * self.ratio**2, 1)
        self.weight.data = weight.permute(1, 2, 3, 0).reshape(self.weight.shape)
        self.bias = nn.Parameter(bias.detach().repeat_interleave(self.ratio**2))

    def forward(self, feature: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(feature), self.ratio)


def _replace_transposed(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.ConvTranspose2d):
            setattr(module, name, ShuffledConvolution(child))
        else:
            _replace_transposed(child)


class Lowered(nn.Module):
    """A denoiser that computes in a precision, with FP32 inputs and output.

    Args:
        net: as it is exported; it stays as it is.
        precision: of all but the islands.
    """

    def __init__(self, net: SSNet, precision: Precision) -> None:
        super().__init__()
        self.dtype = DTYPES[precision]
        self.net = copy.deepcopy(net)
        self.islands: Counter[type[nn.Module]] = Counter()
        _replace_transposed(self.net)
        if precision != "fp32":
            self._lower(self.net)

    def _lower(self, module: nn.Module) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(self.dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(self.dtype))
        for name, child in module.named_children():
            if type(child) not in ISLANDS:
                self._lower(child)
                continue
            self.islands[type(child)] += 1
            # The time embedding is read by islands alone, and never lowered.
            if not isinstance(child, TimeEmbedding):
                setattr(module, name, Island(child))

    @property
    def kept(self) -> list[str]:
        """What stays in FP32 and why, a line each."""
        return [f"{count} {kind.__name__}: {ISLANDS[kind]}" for kind, count in self.islands.items()]

    def forward(self, x_t: Tensor, pan: Tensor, lms: Tensor, ms: Tensor, t: Tensor) -> Tensor:
        """As :meth:`ssdiff_ref.network.ssnet.SSNet.forward`, FP32 in and out."""
        x_t, pan, lms, ms = (image.to(self.dtype) for image in (x_t, pan, lms, ms))
        return self.net(x_t, pan, lms, ms, t).float()


class Step(nn.Module):
    """One step of the sampling loop: the denoiser, the clamp and the update, these in FP32.

    Args:
        denoiser: of the residual.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x_t: Tensor, pan: Tensor, lms: Tensor, ms: Tensor, t: Tensor, coefficients: Tensor
    ) -> Tensor:
        """The next state ``[N, C, H, W]``.

        Args:
            x_t: state.
            pan, lms, ms, t: as the denoiser takes them.
            coefficients: ``[3]``, of the step's image, of the state and of ``lms``; see
                :attr:`ssdiff_trt.runtime.schedule.Schedule.updates`.
        """
        image = self.denoiser(x_t, pan, lms, ms, t) + lms
        # Engines may clamp a NaN to 0; 0 times what is not finite keeps it, to be found and redone.
        image = image.clamp(0, 1) + 0 * image
        of_image, of_state, of_lms = coefficients
        return of_image * image + of_state * x_t + of_lms * lms


@dataclass
class Headroom(TorchFunctionMode):
    """Records the largest magnitude that every operation of a network gives, by module.

    Used as a context around calls of a network in FP32, it tells how far its values are from what
    a lower precision can hold.
    """

    largest: dict[str, float] = field(default_factory=dict)
    """By ``module: operation``."""

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and any(self._inside[-1:])
            and name not in _CONSTANT
        ):
            place = f"{self._inside[-1]}: {name}"
            with torch._C.DisableTorchFunction():
                found = float(result.abs().max()) if result.numel() else 0.0
            self.largest[place] = max(self.largest.get(place, 0.0), found)
        return result

    @contextmanager
    def of(self, net: nn.Module) -> Iterator[Headroom]:
        """Record the calls of a network."""

        def enter(name: str) -> Any:
            return lambda module, inputs: self._inside.append(name)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._inside.pop()

        hooks = []
        islands = tuple(f"{n}." for n, module in net.named_modules() if type(module) in ISLANDS)
        for name, module in net.named_modules():
            lowered = "" if f"{name}.".startswith(islands) else name or "network"
            hooks.append(module.register_forward_pre_hook(enter(lowered)))
            hooks.append(module.register_forward_hook(leave))
        try:
            with self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()
