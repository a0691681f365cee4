"""Verification of a bundle with a backend on the machine that runs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import computed_field

from ssdiff_trt.runtime.backends.on_cpu import graph_inputs
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.backends.protocol import CLAMPED_RESIDUAL, Backend, close
from ssdiff_trt.runtime.backends.registry import best_backend, open_backend
from ssdiff_trt.runtime.bundle.manifest import Manifest
from ssdiff_trt.runtime.bundle.measured import Limits, Parity, Strict, Trajectory
from ssdiff_trt.runtime.bundle.store import Bundle, open_bundle
from ssdiff_trt.runtime.errors import BackendError, InputError
from ssdiff_trt.runtime.files import atomic_write, check_target
from ssdiff_trt.runtime.options import ExecutionOptions, Precision, PrecisionChoice
from ssdiff_trt.runtime.parity.ladder import (
    LIMITS,
    Compared,
    compare,
    faults,
    random_tiles,
    real_tiles,
    trajectories,
    walk,
)
from ssdiff_trt.runtime.parity.layers import Layers, compare_layers, require_polygraphy
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.tiles.batch import Array, Tiles


class Verification(Strict):
    """Result of a verification."""

    bundle: str
    """Name of the bundle."""
    backend: str
    """Description of the backend that was verified."""
    parity: Parity
    faults: tuple[str, ...]
    """Deviations beyond the limits, a clause each."""
    layers: Layers | None = None
    """The layers at the step that deviates most, if they were compared."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether all deviations are within the limits."""
        return not self.faults


class _Recorded(OnnxRuntime):
    """The reference, which keeps the inputs of the step graph at each of its steps."""

    def __init__(self, bundle: Bundle, **options: Any) -> None:
        super().__init__(bundle, **options)
        self.steps: list[dict[str, Array]] = []

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        self.steps.append({**graph_inputs(tiles, x, t), "coefficients": CLAMPED_RESIDUAL})
        return super().denoise(tiles, x, t)


def verify(
    bundle: str,
    backend: str = "auto",
    precision: PrecisionChoice = "auto",
    *,
    device: int | None = None,
    threads: int | None = None,
    trust_engines: bool = False,
    layers: bool = False,
    save_inputs: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Compare a backend, at every sampling step, with ONNX Runtime on the CPU in FP32.

    Args:
        bundle: directory of a bundle, or name of a shipped one.
        backend, precision, device, threads, trust_engines: see
            :class:`ssdiff_trt.runtime.options.ExecutionOptions`.
        layers: whether to compare the layers of the step graph as well, at the step that deviates
            most; see :func:`ssdiff_trt.runtime.parity.layers.compare_layers`.
        save_inputs: npz file for the inputs of the step graph at each compared step, as the
            reference has them: ``[steps, ...]`` by name.
        overwrite: replace this file if it exists.
        progress: receives progress updates.

    Raises:
        SSDiffError: if the bundle or the backend cannot be used, the backend is the reference,
            Polygraphy is needed and not installed, or the file cannot be written.
    """
    progress = progress or Progress()
    if save_inputs is not None:
        check_target(Path(save_inputs), (), overwrite, "save_inputs")
    if layers:
        require_polygraphy()
    # Checks its fields, as for a run.
    execution = ExecutionOptions(
        backend=backend,
        precision=precision,
        device=device,
        threads=threads,
        trust_engines=trust_engines,
    )
    arguments = asdict(execution)
    opened = open_bundle(bundle)
    reference = _Recorded(opened, form="portable", threads=threads)
    if (name := arguments.pop("backend")) == "auto":
        name = best_backend(progress, device or 0, precision)
    if layers and name == "openvino":
        raise InputError(
            "Polygraphy does not run OpenVINO; leave out `layers`, or choose another `backend`."
        )
    verified = open_backend(name, opened, progress=progress, **arguments)
    manifest = opened.manifest
    try:
        compared = trajectories(manifest.model, manifest.sampler, verified.precision)
        verification = _verify(opened, reference, verified, list(compared), progress)
    finally:
        close(verified)
        close(reference)
    if save_inputs is not None:
        with atomic_write(Path(save_inputs)) as unfinished, unfinished.open("wb") as file:
            stacked: dict[str, Any] = {
                key: np.stack([step[key] for step in reference.steps]) for key in reference.steps[0]
            }
            np.savez_compressed(file, **stacked)
    if layers:
        worst = reference.steps[_worst(verification.parity)]
        found = compare_layers(opened, name, verified.precision, worst)
        verification = verification.model_copy(update={"layers": found})
    return verification


def _worst(parity: Parity) -> int:
    """Index of the step that deviates most, over all trajectories; NaN is more than any number."""
    largest = [
        deviation.max
        for trajectory in parity.trajectories
        for step in trajectory.steps
        for deviation in step.deviations.values()
    ]
    return int(np.argmax(np.nan_to_num(largest, nan=math.inf)))


def require_parity(bundle: Bundle, backend: Backend, reference: Backend) -> None:
    """Compare a backend with another at the steps of the bundle, on random and real tiles.

    Raises:
        BackendError: if their images differ by more than the precision of the backend may.
    """
    model, schedule = bundle.manifest.model, bundle.manifest.sampler.schedule()
    inputs: list[Compared] = [
        ("random", random_tiles(model.bands, model.tile), schedule),
        ("real", real_tiles(model.bands, model.tile), schedule),
    ]
    if found := _verify(bundle, reference, backend, inputs, Progress()).faults:
        raise BackendError(
            f"{backend.describe()} {found[0].partition(' ')[2]} compared with fp32; choose "
            "`precision=fp32`."
        )


def _verify(
    bundle: Bundle,
    reference: Backend,
    verified: Backend,
    comparisons: Sequence[Compared],
    progress: Progress,
) -> Verification:
    if verified.describe() == reference.describe():
        raise InputError(
            f"{verified.describe()} is the reference of the verification; choose another "
            "`backend` or `precision`."
        )
    manifest = bundle.manifest
    compared: list[Trajectory] = []
    with progress:
        progress.start("Parity", 2 * len(comparisons))
        for inputs, tiles, schedule in comparisons:
            expected = walk(reference.denoise, tiles, schedule)
            progress.advance(1)
            denoisers = {str(verified.precision): verified.denoise}
            compared.append(compare(inputs, tiles, schedule, expected, denoisers))
            progress.advance(1)
    parity = Parity(
        precision=verified.precision,
        limits=_limits(manifest, verified.precision),
        reference=reference.describe(),
        trajectories=tuple(compared),
    )
    return Verification(
        bundle=manifest.name,
        backend=verified.describe(),
        parity=parity,
        faults=tuple(clause for _, clause in faults(parity)),
    )


def _limits(manifest: Manifest, precision: Precision) -> Limits:
    """Allowed deviation of a backend from ONNX Runtime on the CPU in FP32.

    In FP32 both may be off by what an export allows for rounding. GPUs sum in other orders, by as
    yet unmeasured amounts, so 2e-5 of full scale is always allowed; TF32 would be off by more.
    """
    if precision != "fp32":
        return LIMITS[precision]
    recorded = [
        step.rounding.max
        for parity in manifest.parity
        for trajectory in parity.trajectories
        for step in trajectory.steps
        if step.rounding
    ]
    return Limits(max=max([2e-5, *(2 * (LIMITS["fp32"].rounding or 0) * own for own in recorded)]))
