"""Half precision in the network before it is exported, with some modules left in FP32.

TensorRT 11, and every strongly typed build, takes precision from the graph, and tools that convert
the precision of an exported graph make mistakes. Therefore the network itself is converted:
weights, convolutions and matrix products to FP16 or BF16. The modules of :data:`FP32_MODULES`,
inputs, outputs, the timestep and the sampler's arithmetic stay in FP32.
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
from ssdiff_trt.runtime.options import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class FP32Module(nn.Module):
    """Runs a module in FP32 inside a lower-precision network.

    The first input is cast to FP32 and the result back to the precision of that input; the other
    inputs are passed on unchanged.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, feature: Tensor, *conditions: Tensor) -> Tensor:
        result: Tensor = self.module(feature.float(), *conditions)
        return result.to(feature.dtype)


class ShuffledConvolution(nn.Conv2d):
    """A transposed convolution as a 1 x 1 convolution followed by a pixel shuffle.

    The two are equal where the stride is the size of the kernel. TensorRT-RTX has no transposed
    convolution in BF16, and INT8 is implemented for convolutions only.
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


class GroupNorm(nn.GroupNorm):
    """Group normalisation as instance normalisation of the groups.

    The GroupNormalization of ONNX, which is exported from opset 21 on, computes the variance
    as a difference of squares: on smooth tiles it is 100 times less exact in ONNX Runtime.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps)
        self.load_state_dict(norm.state_dict())

    def forward(self, feature: Tensor) -> Tensor:
        groups = feature.reshape(feature.shape[0], self.num_groups, -1)
        normal = F.instance_norm(groups, eps=self.eps).reshape(feature.shape)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


def _replace_layers(module: nn.Module) -> None:
    """Replace layers that engines lack or compute inexactly by equal ones."""
    replacements = {nn.ConvTranspose2d: ShuffledConvolution, nn.GroupNorm: GroupNorm}
    for name, child in module.named_children():
        if replacement := replacements.get(type(child)):
            setattr(module, name, replacement(child))
        else:
            _replace_layers(child)


FP32_MODULES: dict[type[nn.Module], str] = {
    nn.LayerNorm: "the variance of a token is a difference of nearly equal squares",
    GroupNorm: "statistics are sums over thousands of pixels",
    nn.BatchNorm2d: "stored statistics would lose their last digits",
    FMIM: "computes sums over all pixels of a tile",
    TimeEmbedding: "computes cosines of timesteps up to 999",
    TimeBias: "biases are computed from the time embedding",
}
"""Types of modules that stay in FP32, and the reason for each."""
_UNRECORDED = ("masked_fill",)
"""Functions whose results are not recorded: they fill in constants (masks), not activations."""


class Lowered(nn.Module):
    """A copy of a denoiser that computes in a given precision, with FP32 inputs and output.

    Args:
        net: from :func:`ssdiff_trt.export.graph.network_for_export`; it is not modified.
        precision: of all modules except :data:`FP32_MODULES`.
    """

    def __init__(self, net: SSNet, precision: Precision) -> None:
        super().__init__()
        self.dtype = DTYPES[precision]
        self.net = copy.deepcopy(net)
        self.fp32_modules: Counter[type[nn.Module]] = Counter()
        _replace_layers(self.net)
        if precision != "fp32":
            self._lower(self.net)

    def _lower(self, module: nn.Module) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(self.dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(self.dtype))
        for name, child in module.named_children():
            if type(child) not in FP32_MODULES:
                self._lower(child)
                continue
            self.fp32_modules[type(child)] += 1
            # The input of the time embedding is FP32, and only FP32 modules read its output.
            if not isinstance(child, TimeEmbedding):
                setattr(module, name, FP32Module(child))

    @property
    def kept(self) -> list[str]:
        """One line for each type of module in FP32: how many there are, and the reason."""
        return [
            f"{count} {module.__name__}: {FP32_MODULES[module]}"
            for module, count in self.fp32_modules.items()
        ]

    def forward(self, x_t: Tensor, pan: Tensor, lms: Tensor, ms: Tensor, t: Tensor) -> Tensor:
        """The residual, as :meth:`ssdiff_ref.network.ssnet.SSNet.forward` returns it, in FP32."""
        x_t, pan, lms, ms = (image.to(self.dtype) for image in (x_t, pan, lms, ms))
        return self.net(x_t, pan, lms, ms, t).float()


class Step(nn.Module):
    """One step of the sampling loop: the denoiser, and the clamp and the update in FP32.

    Args:
        denoiser: predicts the residual ``[N, C, H, W]``.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x_t: Tensor, pan: Tensor, lms: Tensor, ms: Tensor, t: Tensor, coefficients: Tensor
    ) -> Tensor:
        """The next state ``[N, C, H, W]``.

        Args:
            x_t: state ``[N, C, H, W]``.
            pan, lms, ms, t: inputs of the denoiser.
            coefficients: ``[3]``, factors of the step's image, of the state and of ``lms``; see
                :attr:`ssdiff_trt.runtime.schedule.Schedule.updates`.
        """
        image = self.denoiser(x_t, pan, lms, ms, t) + lms
        # The clamp makes 1 of infinity, and engines may make 0 of NaN. Both are passed on as NaN,
        # so that the runtime can detect the tile and compute it again.
        finite = image.isnan().logical_or(image.isinf()).logical_not()
        image = image.clamp(0, 1).where(finite, torch.nan)
        image_factor, state_factor, lms_factor = coefficients
        return image_factor * image + state_factor * x_t + lms_factor * lms


@dataclass
class MagnitudeRecorder(TorchFunctionMode):
    """Records the largest magnitude of the results of every operation of a network, by module.

    Compared with the largest finite number of a format, these magnitudes show whether the network
    can overflow in it. The modules of :data:`FP32_MODULES` are left out.
    """

    largest: dict[str, float] = field(default_factory=dict)
    """Largest magnitude by ``MODULE: OPERATION``."""

    def __post_init__(self) -> None:
        super().__init__()
        self._active_modules: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and any(self._active_modules[-1:])
            and name not in _UNRECORDED
        ):
            key = f"{self._active_modules[-1]}: {name}"
            with torch._C.DisableTorchFunction():
                magnitude = float(result.abs().max()) if result.numel() else 0.0
            self.largest[key] = max(self.largest.get(key, 0.0), magnitude)
        return result

    @contextmanager
    def attached(self, net: nn.Module) -> Iterator[MagnitudeRecorder]:
        """Record the calls of an FP32 network inside a ``with`` block."""

        def enter(name: str) -> Any:
            return lambda module, inputs: self._active_modules.append(name)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._active_modules.pop()

        hooks = []
        fp32 = tuple(f"{n}." for n, module in net.named_modules() if type(module) in FP32_MODULES)
        for name, module in net.named_modules():
            # An empty name stands for a module in FP32, whose operations are not recorded.
            recorded = "" if f"{name}.".startswith(fp32) else name or "network"
            hooks.append(module.register_forward_pre_hook(enter(recorded)))
            hooks.append(module.register_forward_hook(leave))
        try:
            with self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()
