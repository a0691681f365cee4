"""A training run as one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from ssdiff_trt.runtime.errors import SSDiffError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Imagery of one kind, to cut training patches from."""

    name: str
    files: tuple[str, ...] = ()
    """Rasters, ``.npy`` or PanCollection ``.h5``; patterns such as ``*.tif`` are expanded."""
    stack: bool = False
    """The files are bands of one scene, on grids that may differ; the first one's is taken."""
    bands: tuple[int, ...] | None = None
    """To take, counted from 1."""
    pan: str | None = None
    """Raster of the real PAN, brought onto the grid of the bands."""
    full_scale: float | None = Field(default=None, gt=0)
    """Digital number that becomes 1; by default the largest of an integer type's."""
    decimations: tuple[int, ...] = (1,)
    """How many pixels become one of the truth: more is sharper for the MTF of the same sensor."""
    weight: float = Field(default=1, gt=0)
    """How often it is drawn, against the other sources."""
    held_out: float = Field(default=0.15, ge=0, lt=1)
    """Share of the columns, at the right, or of the patches, at the end, kept for validation."""
    order: Literal["spectral", "any"] = "spectral"
    """Whether the bands come by wavelength, as those of the network."""
    scenes: int = Field(default=0, ge=0)
    """Instead of files: procedural scenes to make."""
    size: int = Field(default=512, ge=64)
    """Of procedural scenes."""

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        if bool(self.files) == bool(self.scenes):
            raise ValueError("a source has either files or a number of procedural scenes")
        if not self.decimations or min(self.decimations) < 1 or max(self.decimations) > 8:
            raise ValueError("decimations are 1 to 8")
        return self


class Stage(_Strict):
    """Iterations on patches of one size."""

    iterations: int = Field(ge=1)
    patch: int = Field(default=64, ge=16, multiple_of=16)
    """Pixels on a side."""
    batch: int = Field(default=16, ge=1)


class Config(_Strict):
    """What ``ssdiff-ref train`` reads."""

    bands: int = Field(ge=1)
    sources: tuple[Source, ...] = ()
    stages: tuple[Stage, ...] = Field(min_length=1)
    pan_response: tuple[PositiveFloat, ...] | None = None
    """Share of PAN's light that each band has, for weights of one kind of sensor; samples vary
    around it. Default: any share, for whatever sensor."""
    seed: int = 0
    start: str | None = None
    """Weights or a bundle to start from, or the name of a bundle that comes along. If they are for
    fewer bands, they are widened."""
    learning_rate: float = Field(default=1e-3, gt=0)
    final_rate: float = Field(default=0, ge=0)
    """Share of the learning rate that the cosine ends at."""
    warmup: int = Field(default=200, ge=0)
    """Iterations over which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    ema: float = Field(default=0.9999, ge=0, lt=1)
    relative: bool = True
    """Errors count relative to the brightness of their patch, as ERGAS counts them."""
    alternate: int = Field(default=0, ge=0)
    """L-BAF: iterations after which the other branch learns; 0: both learn."""
    validate_every: int = Field(default=500, ge=1)
    patience: int = Field(default=0, ge=0)
    """Validations without a better one after which to stop; 0: never."""
    validation_patches: int = Field(default=64, ge=1)
    save_every: int = Field(default=250, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool | None = None
    """Default: on CUDA."""

    @model_validator(mode="after")
    def _response_by_band(self) -> Config:
        if self.pan_response and len(self.pan_response) != self.bands:
            raise ValueError(f"pan_response has {len(self.pan_response)} values, not {self.bands}")
        return self

    @property
    def iterations(self) -> int:
        """Of all stages."""
        return sum(stage.iterations for stage in self.stages)

    def stage_at(self, iteration: int) -> Stage:
        """The stage that an iteration, from 0, belongs to."""
        for stage in self.stages:
            if iteration < stage.iterations:
                return stage
            iteration -= stage.iterations
        return self.stages[-1]


def read_config(path: str | Path) -> Config:
    """Read and check a TOML file.

    Raises:
        SSDiffError: if it is not there, not TOML, or says something that no run can do.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SSDiffError(f"There is no training configuration {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SSDiffError(f"{path} cannot be read as TOML ({error}); check the file.") from error
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the whole"
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise SSDiffError(f"In {path}, {where}: {fault['msg']}{more}; correct the file.") from error
