"""Proving a bundle on the machine that runs it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.backends.protocol import PrecisionChoice
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.bundle.manifest import Parity, Trajectory
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.ladder import LIMITS, compare, faults, trajectories, walk
from ssdiff_trt.runtime.progress import Progress


class Proof(BaseModel):
    """What came of a verification."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str
    backend: str
    parity: Parity
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all of it is within the limits."""
        return not self.faults


def verify(
    bundle: str, backend: str, precision: PrecisionChoice, progress: Progress | None = None
) -> Proof:
    """Walk trajectories by a backend, and by ONNX Runtime on the CPU in FP32, and compare.

    Args:
        bundle: directory, or name of one that comes along.
        backend: a name of :data:`ssdiff_trt.runtime.backends.protocol.BACKENDS`.
        precision: of the network.
        progress: told how work goes.

    Raises:
        SSDiffError: if the bundle or the backend cannot be used.
    """
    progress = progress or Progress()
    opened = open_bundle(bundle)
    oracle = OnnxRuntime(opened, form="portable")
    judged = open_backend(backend, opened, precision=precision, progress=progress)
    if judged.describe() == oracle.describe():
        raise SSDiffError(
            f"{judged.describe()} is what others are compared with; choose another --backend or "
            "--precision."
        )
    manifest = opened.manifest
    walks = list(trajectories(manifest.model, manifest.sampler, judged.precision))
    compared: list[Trajectory] = []
    with progress:
        progress.start("Parity", 2 * len(walks))
        for inputs, tiles, schedule in walks:
            expected = walk(oracle.denoise, tiles, schedule)
            progress.advance(1)
            others = {str(judged.precision): judged.denoise}
            compared.append(compare(inputs, tiles, schedule, expected, others))
            progress.advance(1)
    parity = Parity(
        precision=judged.precision,
        limits=LIMITS[judged.precision],
        reference=oracle.describe(),
        trajectories=tuple(compared),
    )
    return Proof(
        bundle=manifest.name,
        backend=judged.describe(),
        parity=parity,
        faults=tuple(faults(parity)),
    )
