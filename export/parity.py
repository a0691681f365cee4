"""The proof of an export: what PyTorch and ONNX Runtime make of its graphs, against the reference.

The reference is the network as the authors wrote it, with the FFT and materialised attention, in
FP32. BF16 graphs are compared in PyTorch alone: ONNX Runtime's CPU provider has no convolution in
BF16. INT8 graphs are compared in ONNX Runtime alone: Q/DQ is in the graph and not in the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export.graph import in_form
from ssdiff_trt.export.precision import Headroom, Lowered
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.bundle.manifest import Form, Lowering, Parity, Precision, Trajectory, kinds
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import SSDiffError
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

HALF_MAX = 65504
HEADROOM = 8
"""How many times larger than what real tiles reach the end of FP16 has to be."""
REFERENCE = "torch, FFT, materialised attention"


def torch_denoiser(net: torch.nn.Module) -> Denoiser:
    """A network as the sampling loop wants it."""

    @torch.inference_mode()
    def denoise(tiles: Tiles, x: Array, t: float) -> Array:
        pan, lms, ms = (torch.from_numpy(part) for part in (tiles.pan, tiles.lms, tiles.ms))
        result: Array = net(torch.from_numpy(x), pan, lms, ms, torch.full((len(x),), t)).numpy()
        return result

    return denoise


def _computations(net: SSNet, bundle: Bundle, precision: Precision) -> dict[str, Denoiser]:
    found: dict[str, Denoiser] = {}
    # PyTorch takes seconds a step in FP16 on a CPU; one form shows what lowering does.
    by_torch: dict[Precision, tuple[Form, ...]] = {"fp16": ("fused",), "int8": ()}
    for form in by_torch.get(precision, ("portable", "fused")):
        found[f"torch {form}"] = torch_denoiser(Lowered(in_form(net, form), precision))
    for role, form in kinds(precision) if precision != "bf16" else ():
        runner = OnnxRuntime(bundle, form=form, precision=precision, role=role)
        found[f"onnxruntime {form} {role}"] = runner.denoise
    return found


def measure_parity(
    net: SSNet, bundle: Bundle, precisions: Sequence[Precision], progress: Progress
) -> tuple[Parity, ...]:
    """Compare what a bundle computes with the reference network that it was exported from.

    Args:
        net: the reference, in evaluation mode.
        bundle: with the graphs to judge.
        precisions: of the graphs.
        progress: told how work goes.

    Raises:
        SSDiffError: when the image of a step is further off than ``LIMITS`` of
            :mod:`ssdiff_trt.runtime.parity.ladder`; it says where.
    """
    reference = SSNet(net.bands, fmim="fft", attention="materialised").eval()
    reference.load_state_dict(net.state_dict())
    manifest = bundle.manifest
    every = {precision: _computations(net, bundle, precision) for precision in precisions}
    shared: list[Precision] = [precision for precision in precisions if precision != "int8"]
    alone: list[Precision] = [precision for precision in precisions if precision == "int8"]
    walks = [
        (walked, together)
        for together in (shared, alone)
        if together
        for walked in trajectories(manifest.model, manifest.sampler, together[0])
    ]
    progress.start("Parity", sum(1 + sum(len(every[p]) for p in these) for _, these in walks))
    compared: dict[Precision, list[Trajectory]] = {precision: [] for precision in precisions}
    for (inputs, tiles, schedule), these in walks:
        expected = walk(torch_denoiser(reference), tiles, schedule)
        progress.advance(1)
        for precision in these:
            compared[precision].append(
                compare(
                    inputs,
                    tiles,
                    schedule,
                    expected,
                    every[precision],
                    lambda: progress.advance(1),
                )
            )
    result = tuple(
        Parity(
            precision=precision,
            limits=LIMITS[precision],
            reference=REFERENCE,
            trajectories=tuple(found),
        )
        for precision, found in compared.items()
    )
    for parity in result:
        refuse_faults(parity)
    return result


def refuse_faults(parity: Parity) -> None:
    """Raise on the first deviation beyond the limits, or on one that is no number."""
    for fault in faults(parity):
        raise SSDiffError(f"Parity in {parity.precision} fails: {fault}.")


def measure_lowering(net: SSNet, bundle: Bundle, precision: Precision) -> Lowering:
    """What stays in FP32, and how large values get in what does not, on real trajectories."""
    headroom, plain = Headroom(), in_form(net, "portable")
    manifest = bundle.manifest
    with headroom.of(plain):
        for inputs, tiles, schedule in trajectories(manifest.model, manifest.sampler):
            if inputs == "real":
                walk(torch_denoiser(plain), tiles, schedule)
    where, largest = max(headroom.largest.items(), key=lambda item: item[1])
    if precision == "fp16" and not largest < HALF_MAX / HEADROOM:
        raise SSDiffError(
            f"{where} reaches {largest:.3g} on real tiles, and FP16 ends at {HALF_MAX:g}, expected "
            f"{HEADROOM} times as much room; export in --bf16."
        )
    return Lowering(
        precision=precision,
        kept=tuple(Lowered(plain, precision).kept),
        largest=largest,
        where=where,
    )
