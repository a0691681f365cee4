"""What an export measured, as its manifest records it: parity, quality, precision, calibration."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import Precision


class Strict(BaseModel):
    """Base of immutable models that reject unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(Strict):
    """Allowed deviation of a precision from the reference, as a fraction of full scale."""

    rounding: float | None = None
    """Largest difference, at any step, as a multiple of that of the FP32 reference there."""
    max: float | None = None
    """Largest difference, at any step."""
    rmse: float | None = None
    """Root mean square difference, at any step."""
    psnr: float | None = None
    """Minimum PSNR of the final image for a peak value of 1, dB."""


class Deviation(Strict):
    """Deviation of one computation from the reference, as a fraction of full scale."""

    max: float
    """Largest difference."""
    rmse: float
    """Root mean square difference."""
    psnr: float
    """PSNR for a peak value of 1, dB."""


class StepParity(Strict):
    """Deviations of the image of one sampling step, where each computation runs its own loop."""

    t: int
    """Training timestep."""
    deviations: dict[str, Deviation]
    """Deviations by name of the computation."""
    rounding: Deviation | None = None
    """Deviation of the same reference computed in FP32: what rounding alone does."""

    def without(self, names: Container[str]) -> StepParity:
        """The deviations of the other computations."""
        kept = {name: value for name, value in self.deviations.items() if name not in names}
        return self.model_copy(update={"deviations": kept})


class Trajectory(Strict):
    """Parity of a sampling loop on one set of tiles."""

    inputs: Literal["random", "real"]
    steps: tuple[StepParity, ...]


class Parity(Strict):
    """Result of the parity check of the graphs of one precision."""

    precision: Precision
    limits: Limits
    reference: str
    """Description of the reference computation."""
    trajectories: tuple[Trajectory, ...]


class Lowering(Strict):
    """How the graphs of a lower floating-point precision were derived."""

    precision: Precision
    kept: tuple[str, ...]
    """Operations kept in FP32, each with the reason."""
    largest: float
    """Largest magnitude in the lowered operations on real tiles; FP16 overflows above 65504."""
    where: str
    """Module and operation with that magnitude."""


class Budget(Strict):
    """Allowed loss of quality through INT8."""

    loss: float = Field(gt=0, lt=1)
    """Allowed relative increase of ERGAS and of SAM over FP32."""
    psnr: float = 45
    """Minimum PSNR against the FP32 images for a peak value of 1, dB."""

    @classmethod
    def allowing(cls, loss: float) -> Budget:
        """A budget with an allowed relative increase of ERGAS and of SAM.

        Raises:
            SSDiffError: if it is not between 0 and 1.
        """
        if not 0 < loss < 1:
            raise InputError(
                f"A loss of {loss:.0%} does not work; give one above 0 % and below 100 %.",
                parameter="max_ergas_loss",
            )
        return cls(loss=loss)

    def faults(self, verdict: Verdict) -> Iterator[str]:
        """Measures of a verdict that are over budget, a clause each."""
        for name, now, before in (
            ("ERGAS", verdict.ergas, verdict.ergas_fp32),
            ("SAM", verdict.sam, verdict.sam_fp32),
        ):
            if not now <= before * (1 + self.loss):
                yield f"{name} is {now:.4f} and {before:.4f} in FP32, {self.loss:.2%} is allowed"
        if not verdict.psnr >= self.psnr:
            yield f"PSNR to FP32 is {verdict.psnr:.1f} dB, {self.psnr:g} dB are needed"


class Verdict(Strict):
    """Quality of INT8 and FP32 graphs on tiles with a reference image."""

    tiles: int
    """Number of tiles."""
    ergas_fp32: float
    ergas: float
    sam_fp32: float
    """SAM in degrees."""
    sam: float
    """SAM in degrees."""
    psnr: float
    """PSNR of the INT8 images against the FP32 images for a peak value of 1, dB."""

    @property
    def ergas_loss(self) -> float:
        """Relative increase of ERGAS over FP32; negative if INT8 is better."""
        return self.ergas / self.ergas_fp32 - 1

    @property
    def sam_loss(self) -> float:
        """Relative increase of SAM over FP32; negative if INT8 is better."""
        return self.sam / self.sam_fp32 - 1

    def __str__(self) -> str:
        return (
            f"ERGAS {self.ergas:.4f} ({self.ergas_loss:+.2%}), SAM {self.sam:.4f} "
            f"({self.sam_loss:+.2%}), {self.psnr:.1f} dB to FP32"
        )


class Quantisation(Strict):
    """How the INT8 graphs were calibrated, and the quality they reach."""

    samples: str
    """sha256 of the file of calibration samples."""
    sources: tuple[str, ...]
    """Imagery that the samples are from."""
    timesteps: tuple[int, ...]
    """Timesteps of the calibration."""
    tiles: int
    """Number of calibration tiles, each used at every timestep."""
    method: str
    """Method that derives ranges from the samples."""
    groups: tuple[str, ...]
    """Layer groups in INT8."""
    excluded: tuple[str, ...]
    """Layer groups that could be in INT8 but would exceed the budget."""
    budget: Budget
    verdict: Verdict
    """Quality on held-out tiles."""

    @model_validator(mode="after")
    def _within_budget(self) -> Quantisation:
        for fault in self.budget.faults(self.verdict):
            raise ValueError(f"its INT8 graphs are over budget: {fault}")
        return self


class Judgement(Strict):
    """Quality of the weights on tiles of a real scene whose truth is known."""

    ergas: float
    """ERGAS of the images that the bundle makes with its own sampler."""
    interpolation: float
    """ERGAS of the interpolated MS, which uses no weights."""

    @property
    def worse(self) -> bool:
        """Whether the images are worse than interpolated MS, or not finite."""
        return not self.ergas < self.interpolation

    def __str__(self) -> str:
        return f"ERGAS {self.ergas:.3f}, interpolated MS {self.interpolation:.3f}"
