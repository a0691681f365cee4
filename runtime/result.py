"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.raster.radiometry import Scale
from ssdiff_trt.runtime.raster.registration import Shift
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.inputs import WindowInputs


@dataclass
class Result:
    """What a run did."""

    output: Path
    size: tuple[int, int]
    """Height and width in pixels."""
    bands: tuple[int, ...]
    """Of MS, in the order that the network saw them."""
    tile_overlap: int
    schedule: Schedule
    seed: int
    bundle: Bundle
    backend: str
    precision: Precision
    pan_scale: Scale
    ms_scale: Scale
    position: tuple[float, float]
    """Where MS pixels lie among their 4 x 4 pixels of PAN; 1.5 when the grids fit."""
    shift: tuple[float, float]
    """Rows and columns of PAN by which MS was moved."""
    measured_shift: Shift | None
    """How far MS lies off PAN, if that was measured."""
    resampled: bool
    """Whether MS had to be warped onto the grid."""
    tiles: int = 0
    """Tiles that were sampled."""
    empty_tiles: int = 0
    """Tiles without a valid pixel, which were not."""
    invalid_pixels: int = 0
    """Pixels of the result without a value."""
    beyond_pan: int = 0
    """Valid PAN pixels below 0 or above full scale."""
    beyond_ms: int = 0
    """Valid MS pixels likewise; the result is within 0 and full scale."""
    clipped: int = 0
    """Values of valid pixels that the output type could not hold."""
    seconds: float = 0
    redone: int = 0
    """Tiles that were not finite in low precision and were computed again in FP32."""
    quicklook: Path | None = None

    def add(self, done: WindowInputs) -> None:
        """Count a window."""
        self.tiles += len(done.places)
        self.empty_tiles += len(done.window.tiles) - len(done.places)
        self.beyond_pan += done.beyond_pan
        self.beyond_ms += done.beyond_ms

    def tags(self) -> dict[str, str]:
        """Where the pixels come from, for the file's metadata."""
        manifest = self.bundle.manifest
        software = f"ssdiff-trt {version('ssdiff-trt')}"
        moved = {"SSDIFF_SHIFT": "{:g},{:g}".format(*self.shift)} if any(self.shift) else {}
        return {
            "TIFFTAG_SOFTWARE": software,
            "SSDIFF_VERSION": software,
            "SSDIFF_MODEL": f"{manifest.model.network} {manifest.name}",
            "SSDIFF_BUNDLE_SHA256": self.bundle.sha256,
            "SSDIFF_WEIGHTS_SHA256": manifest.provenance.weights_sha256,
            "SSDIFF_BACKEND": self.backend,
            "SSDIFF_SAMPLER": self.schedule.sampler,
            "SSDIFF_STEPS": str(len(self.schedule.steps)),
            "SSDIFF_TIMESTEPS": ",".join(map(str, self.schedule.timesteps)),
            "SSDIFF_SEED": str(self.seed),
            "SSDIFF_FULL_SCALE": f"{self.ms_scale.value:g}",
            "SSDIFF_PAN_FULL_SCALE": f"{self.pan_scale.value:g}",
            "SSDIFF_BANDS": ",".join(map(str, self.bands)),
            "SSDIFF_TILE_OVERLAP": str(self.tile_overlap),
            **moved,
        }
