"""Parity check of an export: the exported computations against the reference network.

The reference is the network with the FFT, in float64 PyTorch. What rounding does to it is measured
by the network as the authors wrote it, with the FFT and materialised attention, in FP32. The
exported computations are the converted network in PyTorch and its graphs in ONNX Runtime. BF16 is
compared in PyTorch only, because the CPU provider of ONNX Runtime has no convolution in BF16. INT8
is compared in ONNX Runtime only, because Q/DQ pairs exist in the graphs and not in the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ssdiff_ref.network.apfm import AttentionForm
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export.graph import network_for_export
from ssdiff_trt.export.precision import Lowered, MagnitudeRecorder
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.bundle.manifest import Form, Graph, kinds
from ssdiff_trt.runtime.bundle.measured import Lowering, Parity, Trajectory
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import ParityError
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.parity.ladder import (
    LIMITS,
    Array,
    Denoiser,
    compare,
    deviation,
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
REFERENCE = "torch in float64, FFT"
"""Description of the reference computation in the manifest."""


def torch_denoiser(net: torch.nn.Module) -> Denoiser:
    """A PyTorch network as a :data:`Denoiser` of numpy arrays, in the precision of its weights."""
    dtype = next(net.parameters()).dtype
    if isinstance(net, Lowered):
        dtype = torch.float32  # of its inputs

    @torch.inference_mode()
    def denoise(tiles: Tiles, x: Array, t: float) -> Array:
        x_t, pan, lms, ms = (
            torch.from_numpy(array).to(dtype) for array in (x, tiles.pan, tiles.lms, tiles.ms)
        )
        result: Array = net(x_t, pan, lms, ms, torch.full((len(x),), t, dtype=dtype)).numpy()
        return result

    return denoise


def _computations(
    net: SSNet, bundle: Bundle, precision: Precision
) -> tuple[dict[str, Denoiser], dict[str, Graph]]:
    """The denoisers to compare in a precision, by name, and the graphs that some of them run."""
    computations: dict[str, Denoiser] = {}
    graphs: dict[str, Graph] = {}
    # FP16 takes PyTorch seconds per step on a CPU, and one form is enough to check the conversion.
    torch_forms: dict[Precision, tuple[Form, ...]] = {"fp16": ("fused",), "int8": ()}
    for form in torch_forms.get(precision, ("portable", "fused")):
        lowered = Lowered(network_for_export(net, form), precision)
        computations[f"torch {form}"] = torch_denoiser(lowered)
    for role, form in kinds(precision) if precision != "bf16" else ():
        name = f"onnxruntime {form} {role}"
        backend = OnnxRuntime(bundle, form=form, precision=precision, role=role)
        computations[name], graphs[name] = backend.denoise, bundle.graph(role, precision, form)
    return computations, graphs


def _reference(net: SSNet, attention: AttentionForm) -> SSNet:
    """A copy of the network with the FFT."""
    reference = SSNet(net.bands, fmim="fft", attention=attention).eval()
    reference.load_state_dict(net.state_dict())
    return reference


def measure_parity(
    net: SSNet, bundle: Bundle, precisions: Sequence[Precision], progress: Progress
) -> tuple[tuple[Parity, ...], tuple[Graph, ...]]:
    """Compare the computations of a bundle with the reference network, step by step.

    Args:
        net: the network that the bundle was exported from, in evaluation mode.
        bundle: the exported graphs.
        precisions: to compare.
        progress: receives progress updates.

    Returns:
        The parity of each precision, and the graphs without which a bundle can do and which ONNX
        Runtime computes with too large a deviation. They are to be left out, are named in a
        warning, and do not count in the parity.

    Raises:
        SSDiffError: if a deviation of another computation exceeds ``LIMITS`` of
            :mod:`ssdiff_trt.runtime.parity.ladder`; the message names computation and timestep.
    """
    exact = torch_denoiser(_reference(net, "fused").double())
    rounded = torch_denoiser(_reference(net, "materialised"))
    manifest = bundle.manifest
    computations: dict[Precision, dict[str, Denoiser]] = {}
    graphs: dict[Precision, dict[str, Graph]] = {}
    for precision in precisions:
        computations[precision], graphs[precision] = _computations(net, bundle, precision)
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
    progress.start("Parity", sum(2 + sum(len(computations[p]) for p in group) for _, group in runs))
    compared: dict[Precision, list[Trajectory]] = {precision: [] for precision in precisions}
    for (inputs, tiles, schedule), group in runs:
        expected = walk(exact, tiles, schedule)
        rounding = list(map(deviation, walk(rounded, tiles, schedule), expected))
        progress.advance(2)
        for precision in group:
            compared[precision].append(
                compare(
                    inputs,
                    tiles,
                    schedule,
                    expected,
                    computations[precision],
                    lambda: progress.advance(1),
                    rounding,
                )
            )
    result, left_out = [], []
    for precision, measured in compared.items():
        parity = Parity(
            precision=precision,
            limits=LIMITS[precision],
            reference=REFERENCE,
            trajectories=tuple(measured),
        )
        parity, inexact = without_inexact(parity, graphs[precision], progress)
        check_limits(parity)
        result.append(parity)
        left_out += inexact
    return tuple(result), tuple(left_out)


def without_inexact(
    parity: Parity, graphs: Mapping[str, Graph], progress: Progress
) -> tuple[Parity, list[Graph]]:
    """Leave out the graphs that deviate too much and whose role a portable graph can take.

    Args:
        parity: of a precision.
        graphs: the graphs that some of its computations run, by name of the computation.
        progress: receives a warning for each graph.

    Returns:
        The parity without these computations, and these graphs.
    """
    first_faults: dict[str, str] = {}
    for name, clause in faults(parity):
        if name in graphs and graphs[name].form != "portable":
            first_faults.setdefault(name, clause)
    for name, clause in first_faults.items():
        progress.warn(f"the bundle goes without {graphs[name].file}: {clause}")
    trajectories = tuple(
        trajectory.model_copy(
            update={"steps": tuple(step.without(first_faults) for step in trajectory.steps)}
        )
        for trajectory in parity.trajectories
    )
    kept = parity.model_copy(update={"trajectories": trajectories})
    return kept, [graphs[name] for name in first_faults]


def check_limits(parity: Parity) -> None:
    """Check that all deviations are within the limits of their precision.

    Raises:
        SSDiffError: on the first deviation that exceeds its limit or is NaN.
    """
    for _, clause in faults(parity):
        raise ParityError(f"Parity in {parity.precision} fails: {clause}.")


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
