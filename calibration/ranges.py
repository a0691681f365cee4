"""How large the inputs of layers get, timestep by timestep."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from ssdiff_trt.calibration.quantisation import quantisable, with_types
from ssdiff_trt.calibration.samples import Samples
from ssdiff_trt.runtime.progress import Progress

if TYPE_CHECKING:
    import onnx

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
_AT_ONCE = 2  # tiles; the library keeps every activation of a round in memory
_OPTIONS: dict[Method, dict[str, Any]] = {
    "minmax": {"symmetric": True},
    "percentile": {"symmetric": True, "percentile": 99.99},
    "entropy": {"symmetric": True, "num_bins": 512},
}


class Ranges(BaseModel):
    """Magnitudes that stand for 127, of the inputs of the nodes that may be quantised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method
    timesteps: tuple[int, ...]
    by_timestep: dict[str, tuple[float, ...]]
    """By the name of the node, one magnitude for each timestep."""

    @property
    def largest(self) -> dict[str, float]:
        """Over all timesteps, so that none is cut off by what another one needs."""
        return {name: max(found) for name, found in self.by_timestep.items()}


class _Round:
    """Some inputs of the network, as the library wants to be given them."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self._items = iter(items)

    def get_next(self) -> dict[str, Any] | None:
        """One of them; None after the last."""
        return next(self._items, None)


def _rounds(samples: Samples, step: int) -> Iterator[_Round]:
    """The inputs at one timestep, a few tiles at a time."""
    told = np.full(1, samples.about.schedule.steps[step].t, np.float32)
    for first in range(0, len(samples.tiles.pan), _AT_ONCE):
        tiles = samples.tiles.part(slice(first, first + _AT_ONCE))
        states = samples.states[step, first : first + _AT_ONCE]
        yield _Round(
            [
                {"x_t": x[None], "pan": pan[None], "lms": lms[None], "ms": ms[None], "t": told}
                for x, (_, pan, lms, ms) in zip(states, zip(*tiles, strict=True), strict=True)
            ]
        )


def measure_ranges(
    model: onnx.ModelProto, samples: Samples, method: Method, progress: Progress
) -> Ranges:
    """Run a denoiser in FP32 over samples and find the ranges of what its layers are given.

    Args:
        model: a denoiser's graph in FP32, its constants inside.
        samples: of its bundle.
        method: ``minmax``, the largest magnitude; ``percentile``, what 99.99 % stay below;
            ``entropy``, where quantising changes the distribution least (Kullback-Leibler).
        progress: told how work goes.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    kinds = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    nodes = [node for group in quantisable(model).values() for node in group]
    found: dict[str, list[float]] = {node.name: [] for node in nodes}
    timesteps = samples.about.timesteps
    with tempfile.TemporaryDirectory() as folder, progress:
        path = Path(folder) / "denoiser.onnx"
        onnx.save(with_types(model), path)
        rounds = -(-len(samples.tiles.pan) // _AT_ONCE)
        progress.start("Ranges", rounds * len(timesteps))
        for step in range(len(timesteps)):
            calibrator = create_calibrator(
                path,
                sorted({node.op_type for node in nodes}),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=kinds[method],
                extra_options=_OPTIONS[method],
                providers=["CPUExecutionProvider"],
            )
            for reader in _rounds(samples, step):
                with redirect_stdout(io.StringIO()):  # the library talks
                    calibrator.collect_data(reader)
                progress.advance(1)
            with redirect_stdout(io.StringIO()):
                data = calibrator.compute_data().data
            for node in nodes:
                low, high = data[node.input[0]].range_value
                found[node.name].append(float(np.maximum(np.abs(low), np.abs(high)).max()))
    return Ranges(
        method=method,
        timesteps=timesteps,
        by_timestep={name: tuple(values) for name, values in found.items()},
    )
