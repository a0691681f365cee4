"""Ranges of the inputs of quantisable layers, by timestep."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ssdiff_trt.calibration.quantisation import quantisable, with_activation_types
from ssdiff_trt.calibration.samples import Samples
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.progress import Progress

if TYPE_CHECKING:
    import onnx

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
_TILES_PER_READER = 2  # onnxruntime keeps all activations of one reader in memory
_OPTIONS: dict[Method, dict[str, Any]] = {
    "minmax": {"symmetric": True},
    "percentile": {"symmetric": True, "percentile": 99.99},
    "entropy": {"symmetric": True, "num_bins": 512},
}


class Ranges(Strict):
    """Magnitudes of the inputs of quantisable nodes that are quantised to 127."""

    method: Method
    timesteps: tuple[int, ...]
    by_timestep: dict[str, tuple[float, ...]]
    """By name of the node, one magnitude for each of ``timesteps``."""

    @property
    def largest(self) -> dict[str, float]:
        """By name of the node, the largest magnitude over all timesteps.

        A graph has one range for all timesteps, and the largest one clips at none of them.
        """
        return {name: max(magnitudes) for name, magnitudes in self.by_timestep.items()}


class _Reader:
    """Inputs of the network with the interface of onnxruntime's ``CalibrationDataReader``."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self._items = iter(items)

    def get_next(self) -> dict[str, Any] | None:
        """The next input by tensor name; None after the last."""
        return next(self._items, None)


def _readers(samples: Samples, step: int) -> Iterator[_Reader]:
    """The inputs at one timestep, a few tiles for each reader."""
    t = np.full(1, samples.about.schedule.steps[step].t, np.float32)
    for first in range(0, len(samples.tiles.pan), _TILES_PER_READER):
        tiles = samples.tiles.part(slice(first, first + _TILES_PER_READER))
        states = samples.states[step, first : first + _TILES_PER_READER]
        yield _Reader(
            [
                {"x_t": x[None], "pan": pan[None], "lms": lms[None], "ms": ms[None], "t": t}
                for x, (_, pan, lms, ms) in zip(states, zip(*tiles, strict=True), strict=True)
            ]
        )


def measure_ranges(
    model: onnx.ModelProto, samples: Samples, method: Method, progress: Progress
) -> Ranges:
    """Run an FP32 denoiser on calibration samples and measure the ranges of its layers' inputs.

    Args:
        model: graph of an FP32 denoiser, with its constants loaded.
        samples: collected with the same weights.
        method: ``minmax``: the largest magnitude; ``percentile``: the 99.99th percentile of the
            magnitudes; ``entropy``: the magnitude that minimises the Kullback-Leibler divergence
            between the distributions before and after quantisation.
        progress: receives progress updates.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    calibration_methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    nodes = [node for group in quantisable(model).values() for node in group]
    magnitudes: dict[str, list[float]] = {node.name: [] for node in nodes}
    timesteps = samples.about.timesteps
    with tempfile.TemporaryDirectory() as folder, progress:
        path = Path(folder) / "denoiser.onnx"
        onnx.save(with_activation_types(model), path)
        readers = -(-len(samples.tiles.pan) // _TILES_PER_READER)
        progress.start("Ranges", readers * len(timesteps))
        for step in range(len(timesteps)):
            calibrator = create_calibrator(
                path,
                sorted({node.op_type for node in nodes}),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=calibration_methods[method],
                extra_options=_OPTIONS[method],
                providers=["CPUExecutionProvider"],
            )
            for reader in _readers(samples, step):
                with redirect_stdout(io.StringIO()):  # onnxruntime prints to standard output
                    calibrator.collect_data(reader)
                progress.advance(1)
            with redirect_stdout(io.StringIO()):
                data = calibrator.compute_data().data
            for node in nodes:
                low, high = data[node.input[0]].range_value
                magnitudes[node.name].append(float(np.maximum(np.abs(low), np.abs(high)).max()))
    return Ranges(
        method=method,
        timesteps=timesteps,
        by_timestep={name: tuple(values) for name, values in magnitudes.items()},
    )
