"""What a program without this package needs to run a step graph or an engine of it, as JSON.

docs/integration.md explains the fields; examples/loop_onnxruntime.py is such a program.
"""

from __future__ import annotations

from typing import Literal

from ssdiff_trt.runtime.bundle.manifest import Graph, TensorSpec
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.bundle.store import Bundle

_CONTENT = {
    "x_t": "the state: unit normal noise at the first step, then the last x_next",
    "pan": "PAN divided by its full scale, 0 to 1",
    "lms": "MS divided by its full scale, 0 to 1, interpolated to the pixels of PAN",
    "ms": "MS divided by its full scale, 0 to 1",
    "t": "the step's t, for each tile",
    "coefficients": "the step's coefficients",
    "x_next": "the next state; after the last step the image, 0 to 1 of the full scale of MS",
}


class Tensor(Strict):
    """An input or output, contiguous, the last axis fastest."""

    name: str
    shape: tuple[int, ...]
    """Tiles, then bands, rows and columns where it has them."""
    dtype: Literal["float32"]
    content: str


class LoopStep(Strict):
    """One step of the sampling loop."""

    t: float
    coefficients: tuple[float, ...]


class EngineFile(Strict):
    """A TensorRT engine of the graph."""

    file: str
    sha256: str
    flavour: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    """Of TensorRT; no other loads it."""
    gpu: str
    """That it runs on."""


class Contract(Strict):
    """What a program needs to sample tiles."""

    version: Literal[1] = 1
    """Of the contract: a program that knows one version reads no other."""
    bundle: str
    bundle_sha256: str
    graph: str
    """File of the ONNX graph in the bundle."""
    precision: str
    """Of the network; inputs and outputs are float32 in all of them."""
    opset: int
    bands: tuple[str, ...]
    """In the order of the network."""
    full_scale: float
    """Digital number that is 1, of the sensor that the bundle is for."""
    ratio: int
    """Pixels of PAN on a side of a pixel of MS."""
    tile: int
    """Pixels of PAN on a side of a tile."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sampler: str
    steps: tuple[LoopStep, ...]
    """In this order, from noise to image."""
    back_projection: float
    """Share of the difference from MS that a run corrects after the last step."""
    trtexec: str
    """Command that builds an engine of the graph, in the folder of the bundle."""
    engine: EngineFile | None = None


def contract_of(bundle: Bundle, graph: Graph, batch: int) -> Contract:
    """The contract of a step graph for batches of one size.

    Args:
        bundle: bundle that has the graph.
        graph: one of its step graphs.
        batch: tiles in a batch.
    """
    manifest = bundle.manifest
    schedule = manifest.sampler.schedule()

    def tensors(specs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(
                name=spec.name,
                shape=tuple(batch if size == "batch" else size for size in spec.shape),
                dtype=spec.dtype,
                content=_CONTENT[spec.name],
            )
            for spec in specs
        )

    inputs = tensors(graph.inputs)
    dynamic = [tensor for tensor in inputs if tensor.name != "coefficients"]
    shapes = ",".join(f"{tensor.name}:{'x'.join(map(str, tensor.shape))}" for tensor in dynamic)
    return Contract(
        bundle=manifest.name,
        bundle_sha256=bundle.sha256,
        graph=graph.file,
        precision=graph.precision,
        opset=graph.opset,
        bands=manifest.sensor.bands,
        full_scale=manifest.sensor.full_scale,
        ratio=manifest.model.ratio,
        tile=manifest.model.tile,
        inputs=inputs,
        outputs=tensors(graph.outputs),
        sampler=schedule.sampler,
        steps=tuple(
            LoopStep(t=step.t, coefficients=tuple(map(float, coefficients)))
            for step, coefficients in zip(schedule.steps, schedule.updates, strict=True)
        ),
        back_projection=manifest.sampler.back_projection,
        trtexec=f"trtexec --onnx={graph.file} --saveEngine=step.plan --stronglyTyped --noTF32 "
        f"--shapes={shapes}",
    )
