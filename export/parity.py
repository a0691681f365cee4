"""Parity check of an export: the exported computations against the reference network.

The reference is the network as the authors wrote it, with the FFT and materialised attention, in
FP32 PyTorch. The exported computations are the converted network in PyTorch and its graphs in ONNX
Runtime. BF16 is compared in PyTorch only, because the CPU provider of ONNX Runtime has no
convolution in BF16. INT8 is compared in ONNX Runtime only, because Q/DQ pairs exist in the graphs
and not in the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export.graph import network_for_export
from ssdiff_trt.export.precision import Lowered, MagnitudeRecorder
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.bundle.manifest import Form, Lowering, Parity, Precision, Trajectory, kinds
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import ParityError
from ssdiff_trt.runtime.parity.ladder import (
    LIMITS,
    Array,
    Denoiser,
    compare,
    faults,
    trajectories,
    walk,
)
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.tiles.batch import Tiles

FP16_MAX = 65504
"""Largest finite number in FP16."""
FP16_HEADROOM = 8
"""Least ratio of ``FP16_MAX`` to the largest magnitude on tiles of real imagery."""
REFERENCE = "torch, FFT, materialised attention"
"""Description of the reference computation in the manifest."""


def torch_denoiser(net: torch.nn.Module) -> Denoiser:
    """A PyTorch network as a :data:`Denoiser` of numpy arrays."""

    @torch.inference_mode()
    def denoise(tiles: Tiles, x: Array, t: float) -> Array:
        pan, lms, ms = (torch.from_numpy(array) for array in (tiles.pan, tiles.lms, tiles.ms))
        result: Array = net(torch.from_numpy(x), pan, lms, ms, torch.full((len(x),), t)).numpy()
        return result

    return denoise


def _computations(net: SSNet, bundle: Bundle, precision: Precision) -> dict[str, Denoiser]:
    """The denoisers to compare in a precision, by name."""
    computations: dict[str, Denoiser] = {}
    # FP16 takes PyTorch seconds per step on a CPU, and one form is enough to check the conversion.
    torch_forms: dict[Precision, tuple[Form, ...]] = {"fp16": ("fused",), "int8": ()}
    for form in torch_forms.get(precision, ("portable", "fused")):
        lowered = Lowered(network_for_export(net, form), precision)
        computations[f"torch {form}"] = torch_denoiser(lowered)
    for role, form in kinds(precision) if precision != "bf16" else ():
        backend = OnnxRuntime(bundle, form=form, precision=precision, role=role)
        computations[f"onnxruntime {form} {role}"] = backend.denoise
    return computations


def measure_parity(
    net: SSNet, bundle: Bundle, precisions: Sequence[Precision], progress: Progress
) -> tuple[Parity, ...]:
    """Compare the computations of a bundle with the reference network, step by step.

    Args:
        net: the network that the bundle was exported from, in evaluation mode.
        bundle: the exported graphs.
        precisions: to compare.
        progress: receives progress updates.

    Raises:
        SSDiffError: if a deviation exceeds ``LIMITS`` of
            :mod:`ssdiff_trt.runtime.parity.ladder`; the message names computation and timestep.
    """
    reference = SSNet(net.bands, fmim="fft", attention="materialised").eval()
    reference.load_state_dict(net.state_dict())
    manifest = bundle.manifest
    computations = {precision: _computations(net, bundle, precision) for precision in precisions}
    # INT8 is compared on trajectories of its own, all other precisions on the same ones.
    float_precisions: list[Precision] = [
        precision for precision in precisions if precision != "int8"
    ]
    int8_precision: list[Precision] = [precision for precision in precisions if precision == "int8"]
    runs = [
        (trajectory, group)
        for group in (float_precisions, int8_precision)
        if group
        for trajectory in trajectories(manifest.model, manifest.sampler, group[0])
    ]
    progress.start("Parity", sum(1 + sum(len(computations[p]) for p in group) for _, group in runs))
    compared: dict[Precision, list[Trajectory]] = {precision: [] for precision in precisions}
    for (inputs, tiles, schedule), group in runs:
        expected = walk(torch_denoiser(reference), tiles, schedule)
        progress.advance(1)
        for precision in group:
            compared[precision].append(
                compare(
                    inputs,
                    tiles,
                    schedule,
                    expected,
                    computations[precision],
                    lambda: progress.advance(1),
                )
            )
    result = tuple(
        Parity(
            precision=precision,
            limits=LIMITS[precision],
            reference=REFERENCE,
            trajectories=tuple(measured),
        )
        for precision, measured in compared.items()
    )
    for parity in result:
        check_limits(parity)
    return result


def check_limits(parity: Parity) -> None:
    """Check that all deviations are within the limits of their precision.

    Raises:
        SSDiffError: on the first deviation that exceeds its limit or is NaN.
    """
    for fault in faults(parity):
        raise ParityError(f"Parity in {parity.precision} fails: {fault}.")


def measure_lowering(net: SSNet, bundle: Bundle, precision: Precision) -> Lowering:
    """List the modules that stay in FP32, and measure the largest magnitude in the others.

    The magnitude is that of an FP32 run over trajectories on tiles of real imagery.

    Args:
        net: the network that the bundle was exported from, in evaluation mode.
        bundle: whose bands, tile size and sampler define the trajectories.
        precision: ``fp16`` or ``bf16``.

    Raises:
        SSDiffError: if that magnitude is too close to the largest number in FP16.
    """
    recorder, exported = MagnitudeRecorder(), network_for_export(net, "portable")
    manifest = bundle.manifest
    with recorder.attached(exported):
        for inputs, tiles, schedule in trajectories(manifest.model, manifest.sampler):
            if inputs == "real":
                walk(torch_denoiser(exported), tiles, schedule)
    where, largest = max(recorder.largest.items(), key=lambda item: item[1])
    if precision == "fp16" and not largest < FP16_MAX / FP16_HEADROOM:
        raise ParityError(
            f"The largest value on real tiles is {largest:.3g} ({where}), expected less than "
            f"{FP16_MAX / FP16_HEADROOM:g} (1/{FP16_HEADROOM} of the FP16 maximum); export in "
            "`bf16`."
        )
    return Lowering(
        precision=precision,
        kept=tuple(Lowered(exported, precision).kept),
        largest=largest,
        where=where,
    )
