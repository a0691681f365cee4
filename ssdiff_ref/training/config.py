"""Configuration of a training run, read from a TOML file (a recipe)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from ssdiff_trt.runtime.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Strict):
    """Imagery of one kind from which training patches are cropped."""

    name: str
    files: tuple[str, ...] = ()
    """Rasters, ``.npy`` or PanCollection ``.h5`` files; may be glob patterns such as ``*.tif``."""
    stack: bool = False
    """Whether the files are bands of one scene; they are resampled to the first file's grid."""
    bands: tuple[int, ...] | None = None
    """Bands to use, counted from 1; all by default."""
    nodata: float | None = Field(default=None, allow_inf_nan=True)
    """Value that means no data, in place of what the files declare."""
    spectra: str | None = None
    """Hyperspectral scene from which four bands become the eight of WorldView; see
    :class:`ssdiff_ref.training.spectra.SpectralLibrary`."""
    pan: str | None = None
    """Raster of real PAN, resampled to the grid of the bands; PAN is simulated by default."""
    full_scale: float | None = Field(default=None, gt=0)
    """Digital number that PanCollection files are divided by; 2047 by default."""
    decimations: tuple[int, ...] = (1,)
    """Factors by which the source is decimated to give the ground truth, 1 to 8.

    Larger factors give a sharper ground truth, since less of the source sensor's blur remains."""
    weight: float = Field(default=1, gt=0)
    """Sampling weight relative to the other sources."""
    held_out: float = Field(default=0.15, ge=0, lt=1)
    """Fraction held out for validation: rightmost columns, or last patches of an ``.h5``."""
    order: Literal["spectral", "any"] = "spectral"
    """Whether the bands are ordered by wavelength, like those of the network."""
    scenes: int = Field(default=0, ge=0)
    """Number of procedural scenes to generate instead of reading files."""
    size: int = Field(default=512, ge=64)
    """Side of procedural scenes in pixels."""

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        if bool(self.files) == bool(self.scenes):
            raise ValueError("a source needs either files or a number of procedural scenes")
        if not self.decimations or min(self.decimations) < 1 or max(self.decimations) > 8:
            raise ValueError("decimations must be 1 to 8, and at least one")
        return self


Fraction = Annotated[float, Field(gt=0, le=1)]
Range = tuple[Fraction, Fraction]
"""Smallest and largest value."""
LogRatio = Annotated[float, Field(ge=-2, le=2)]


class Simulation(_Strict):
    """How much simulated samples differ; standard deviations as fractions of full scale."""

    level: Range = (0.03, 0.4)
    """Mean brightness of the source image, as a fraction of full scale."""
    ms_gain: Range = (0.2, 0.4)
    """MTF of the multispectral sensor at its Nyquist frequency."""
    diffraction: tuple[LogRatio, LogRatio] = (-0.1, 0.5)
    """Smallest and largest logarithm of the ratio of the MTF at the shortest wavelength to that at
    the longest."""
    air: float = Field(default=1.2, ge=0, le=2)
    """Air blurs short wavelengths most: largest logarithm of the ratio of the truth's response at
    the Nyquist frequency at the longest wavelength to that at the shortest."""
    noise: Range = (0.0003, 0.004)
    """Noise of the truth and of PAN, in three samples of five."""
    ms_noise: Range = (0.0003, 0.006)
    """Noise of MS, in half of the samples."""
    haze: float = Field(default=0.9, ge=0, le=0.95)
    """Largest share of the contrast of a band that haze takes, in three samples of five."""


SIMULATION = Simulation()
"""The defaults."""


class Stage(_Strict):
    """Consecutive iterations with one patch size and batch size."""

    iterations: int = Field(ge=1)
    patch: int = Field(default=64, ge=16, multiple_of=16)
    """Side of a patch in pixels."""
    batch: int = Field(default=16, ge=1)


class Config(_Strict):
    """Configuration of ``ssdiff-ref train``."""

    bands: int = Field(ge=1)
    sources: tuple[Source, ...] = ()
    stages: tuple[Stage, ...] = Field(min_length=1)
    pan_response: tuple[PositiveFloat, ...] | None = None
    """Typical weight of each band in PAN, around which samples vary, to train for one sensor type.

    By default the weights are random, to train for arbitrary sensors."""
    arrays: tuple[tuple[int, ...], ...] = ()
    """Bands, counted from 1, of each detector array of a sensor whose arrays are displaced."""
    simulation: Simulation = SIMULATION
    seed: int = Field(default=0, ge=0, lt=2**64)
    start: str | None = None
    """Initial weights: a file, a bundle, or the name of a shipped bundle; random by default.

    Weights for fewer bands are widened."""
    weights_key: str | None = None
    """Where in the file ``start`` the weights are, such as ``ema``; needed if there are several."""
    learning_rate: float = Field(default=1e-3, gt=0)
    final_rate: float = Field(default=0, ge=0)
    """Final learning rate of the cosine schedule, as a fraction of ``learning_rate``."""
    warmup: int = Field(default=200, ge=0)
    """Iterations of linear warm-up of the learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    ema: float = Field(default=0.9999, ge=0, lt=1)
    """Decay of the exponential moving average of the weights."""
    relative: bool = True
    """Whether the loss is relative to the mean of each patch, like ERGAS."""
    error: Literal["absolute", "rms"] = "absolute"
    """Error in the loss: mean of the magnitudes (L1), or root of the mean square of each patch."""
    first_timestep: float = Field(default=0, ge=0, le=1)
    """Fraction of the samples at timestep 999, where sampling begins; the others are uniform."""
    pan_correlation: float = Field(default=0, ge=0)
    """Weight of D_rho in the loss: one minus the local correlation of the image with PAN."""
    back_projection: float = Field(default=0, ge=0, le=1)
    """Share of back-projection in the loss; state the same when the weights are exported."""
    alternate: int = Field(default=0, ge=0)
    """L-BAF: iterations after which training switches to the other branch; 0 trains both."""
    validate_every: int = Field(default=500, ge=1)
    """Iterations between validations."""
    patience: int = Field(default=0, ge=0)
    """Early stopping: validations without improvement before training stops; 0 disables it."""
    validation_patches: int = Field(default=64, ge=1)
    save_every: int = Field(default=250, ge=1)
    """Iterations between checkpoints."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool | None = None
    """Whether to use ``torch.compile``; by default on CUDA only."""

    @model_validator(mode="after")
    def _response_by_band(self) -> Config:
        if self.pan_response and len(self.pan_response) != self.bands:
            raise ValueError(
                f"pan_response has {len(self.pan_response)} values, expected {self.bands}"
            )
        return self

    @property
    def iterations(self) -> int:
        """Total iterations of all stages."""
        return sum(stage.iterations for stage in self.stages)

    def stage_at(self, iteration: int) -> Stage:
        """The stage of an iteration, counted from 0."""
        for stage in self.stages:
            if iteration < stage.iterations:
                return stage
            iteration -= stage.iterations
        return self.stages[-1]


def read_config(path: str | Path) -> Config:
    """Read and validate a TOML file.

    Raises:
        SSDiffError: if the file is missing, not TOML, or not a valid configuration.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no training configuration {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise InputError(f"{path} cannot be read as TOML ({error}); check the file.") from error
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"])) or "the configuration"
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(
            f"In {path}, {location}: {first['msg']}{more}; correct the file."
        ) from error
