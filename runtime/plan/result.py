"""The result of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssdiff_trt.runtime.consistency import Consistency
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.raster.checks import clipped_warning, partly_zero_warning
from ssdiff_trt.runtime.tiles.inputs import WindowInputs


@dataclass
class Counts:
    """What a run counts."""

    tiles: int = 0
    """Tiles that were sampled; those at borders of blocks count for each block."""
    empty_tiles: int = 0
    """Tiles without a valid pixel, which were not."""
    invalid_pixels: int = 0
    """Pixels of the result without a value."""
    beyond_pan: int = 0
    """Valid PAN pixels below 0 or above full scale."""
    beyond_ms: int = 0
    """Valid MS pixels likewise."""
    partly_zero: int = 0
    """Valid MS pixels with a band at 0, where 0 means no data."""
    clipped: int = 0
    """Values of valid pixels that the output type could not hold."""
    redone: int = 0
    """Tiles with non-finite values in low precision, computed again in FP32."""

    def add_window(self, inputs: WindowInputs) -> None:
        """Count a window."""
        self.invalid_pixels += int(inputs.valid.size - inputs.valid.sum())
        self.tiles += len(inputs.places)
        self.empty_tiles += inputs.empty
        self.beyond_pan += inputs.beyond_pan
        self.beyond_ms += inputs.beyond_ms
        self.partly_zero += inputs.partly_zero


@dataclass
class Tally:
    """What a run counts and measures, of a block or of all of them."""

    counts: Counts = field(default_factory=Counts)
    consistency: Consistency = field(default_factory=Consistency)

    def record(self) -> dict[str, float]:
        """All of it, by name."""
        return {**vars(self.counts), **vars(self.consistency)}

    def add(self, record: Mapping[str, float]) -> None:
        """Add the record of a block."""
        for part in (self.counts, self.consistency):
            for name, value in vars(part).items():
                setattr(part, name, value + record[name])


@dataclass
class Worker:
    """What a process has done for a run."""

    name: str
    """That it has among the workers of its scheduler."""
    blocks: int = 0
    """Blocks that it computed."""
    tiles: int = 0
    """Tiles of these, empty ones included."""
    seconds: float = 0.0
    """Time that it took for them."""

    @property
    def rate(self) -> str:
        """Its throughput, in words to append."""
        return f", {self.tiles / self.seconds:.3g} tiles/s" if self.seconds else ""


@dataclass(frozen=True)
class Result:
    """What a run did."""

    plan: Plan
    counts: Counts
    consistency: Consistency
    """How well the result, put back to the resolution of MS, agrees with MS."""
    backend: str
    """Description of the backend."""
    precision: Precision
    """Precision of the network."""
    seconds: float
    finished_before: int = 0
    """Tiles of blocks that an interrupted run had finished."""
    workers: tuple[Worker, ...] = ()
    """What each worker did; empty if this process did everything."""

    @property
    def output(self) -> Path | None:
        """File of the result; None for arrays, and where it was uploaded to a URL."""
        return None if self.plan.upload else self.plan.output

    @property
    def quicklook(self) -> Path | None:
        """Picture of the run, if one was asked for."""
        return self.plan.quicklook

    @property
    def uncertainty(self) -> Path | None:
        """File of the uncertainty of the result, if one was asked for."""
        return self.plan.uncertainty

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        return self.plan.size

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the plan, and of values that did not fit; one sentence each."""
        return (*self.plan.warnings, *self.run_warnings())

    def run_warnings(self) -> Iterator[str]:
        """Warnings that only the run could give."""
        counts, taken = self.counts, self.plan.assumptions
        limits = (
            (counts.beyond_pan, "PAN", taken.pan_scale, "detail is limited to that range"),
            (counts.beyond_ms, "MS", taken.ms_scale, "the rest of them is MS, interpolated"),
        )
        for beyond, role, scale, effect in limits:
            if beyond:
                yield (
                    f"{counted(beyond, 'valid pixel')} of {role} below 0 or above full scale "
                    f"{scale.value:g}: {effect}; if the data has a larger full scale, pass "
                    "`full_scale`"
                )
        yield from partly_zero_warning(counts.partly_zero)
        yield from clipped_warning(counts.clipped)
        if counts.redone:
            yield (
                f"{counted(counts.redone, 'tile')} had non-finite values in {self.precision} and "
                "were computed again in fp32; if these are many, choose `precision=fp32`"
            )
        if counts.invalid_pixels == self.size[0] * self.size[1]:
            yield "no pixel is valid in both PAN and MS, so the result is empty"

    def summary(self) -> dict[str, Any]:
        """What was assumed, done and counted, as JSON can hold it."""
        return {
            **self.plan.summary(self.backend),
            "counts": asdict(self.counts),
            "consistency": {"rmse": self.consistency.rmse, "mtf": self.plan.optics.name},
            "seconds": round(self.seconds, 3),
            "finished_before": self.finished_before,
            "workers": [asdict(worker) for worker in self.workers],
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        height, width = self.size
        place = self.plan.destination or "array"
        tiles = counted(self.counts.tiles, "tile")
        return f"<Result {place}: {width} x {height}, {tiles}, {self.seconds:.1f} s>"
