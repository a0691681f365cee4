"""Options of a run in groups: documented, with their defaults, and checked here, once.

Functions take them as keyword arguments, ``pansharpen(pan, ms, nodata=0, seed=7)``, and sort them
into these groups; the commands make their options from the same fields. The ``TypedDict`` of a
group has its names and types for type checkers; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, get_args

from ssdiff_trt.runtime.arguments import (
    area_of,
    bands_of,
    check_choice,
    check_interval,
    check_number,
    check_seed,
    check_shift,
    full_scale_of,
    positive,
    settle,
    share_of,
    whole,
    whole_numbers,
)
from ssdiff_trt.runtime.errors import InputError

Sampler = Literal["consistent", "released"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
BackendName = Literal[
    "auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime", "openvino"
]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
Precision = Literal["fp32", "fp16", "bf16", "int8"]
PrecisionChoice = Literal["auto", Precision]
PRECISIONS: tuple[PrecisionChoice, ...] = get_args(PrecisionChoice)
ZeroBands = Literal["all", "any"]
ZERO_BANDS: tuple[ZeroBands, ...] = get_args(ZeroBands)
Georeferencing = Literal["files", "corners"]
GEOREFERENCING: tuple[Georeferencing, ...] = get_args(Georeferencing)
ShiftChoice = Literal["auto", "none"] | tuple[float, float]
"""What to do about a shift between PAN and MS; rows and columns of PAN state it."""
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
DRIVERS = ("GTiff", "COG")


def option(default: Any, text: str) -> Any:
    """A field of a group, with the sentence that documents it."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Which pixels of PAN and MS are read."""

    bands: Sequence[int | str] | None = option(
        None,
        "Bands of MS in the order that the network expects, by number (from 1) or name; "
        "default: all but alpha.",
    )
    pan_band: int | None = option(None, "Band of PAN, needed if it has several.")
    nodata: float | None = option(
        None,
        "Value that means no data in PAN and MS, in place of those that the files declare; masks "
        "and alpha count as well.",
    )
    pan_nodata: float | None = option(
        None, "Value that means no data in PAN, if it differs from that of MS."
    )
    ms_nodata: float | None = option(
        None, "Value that means no data in MS, if it differs from that of PAN."
    )
    zero_bands: ZeroBands = option(
        "all",
        "Where 0 means no data, an MS pixel is empty if all of its bands are 0, or if any is; on "
        "dark water some bands are 0.",
    )
    georeferencing: Georeferencing = option(
        "files",
        "Placement of MS on PAN; files: by their georeferencing; corners: both images show the "
        "same ground from corner to corner, whatever the files say.",
    )

    def __post_init__(self) -> None:
        check_choice("zero_bands", self.zero_bands, ZERO_BANDS)
        check_choice("georeferencing", self.georeferencing, GEOREFERENCING)
        settle(self, pan_band=whole, bands=bands_of, nodata=check_number)
        settle(self, pan_nodata=check_number, ms_nodata=check_number)


class ReadArguments(TypedDict, total=False):
    """Keyword arguments of :class:`ReadOptions`."""

    bands: Sequence[int | str] | None
    pan_band: int | None
    nodata: float | None
    pan_nodata: float | None
    ms_nodata: float | None
    zero_bands: ZeroBands
    georeferencing: Georeferencing


@dataclass(frozen=True, kw_only=True)
class PairOptions(ReadOptions):
    """How the pixels of PAN and MS are understood."""

    full_scale: float | None = option(
        None,
        "Largest digital number of the sensor, such as 2047 for 11 bits, or that of reflectance "
        "1, such as 10000, by which PAN and MS are divided; default: declared by the product or "
        "the file (NBITS), 255 for 8-bit files, else that of the bundle's sensor.",
    )
    pan_full_scale: float | None = option(None, "Full scale of PAN, if it differs from that of MS.")
    shift: ShiftChoice = option(
        "auto",
        "By how many rows (down) and columns (right) of PAN MS is moved to lie on PAN; auto: "
        "measured, and moved where the measurement is reliable.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, full_scale=full_scale_of, pan_full_scale=full_scale_of)
        check_shift(self.shift)


class PairArguments(ReadArguments, total=False):
    """Keyword arguments of :class:`PairOptions`."""

    full_scale: float | None
    pan_full_scale: float | None
    shift: ShiftChoice


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the network samples. The result depends on all of these."""

    steps: int | None = option(
        None,
        "Number of sampling steps, evenly spaced; the run takes longer with each. Default: the "
        "bundle's timesteps, or ten for the sampler released.",
    )
    timesteps: Sequence[int] | None = option(
        None, "Timesteps to sample at, 0 to 999, in place of a number of steps."
    )
    sampler: Sampler | None = option(
        None,
        "consistent: as the network is trained; released: as the authors' code samples; default: "
        "the bundle's.",
    )
    seed: int = option(0, "Seed of the noise, 0 to 2**64 - 1.")
    tile_overlap: int | None = option(
        None,
        "Pixels over which neighbouring tiles are blended, a multiple of 4; default: 16, or a "
        "quarter of a tile where that is less.",
    )
    back_projection: float | None = option(
        None,
        "Share, 0 to 1, of the difference between MS and the result, at the resolution of MS, "
        "that is added to the result; default: the bundle's, or 0 with a sampler that is not the "
        "bundle's.",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        settle(self, steps=whole, tile_overlap=whole, timesteps=whole_numbers)
        settle(self, back_projection=share_of)
        if self.steps is not None and self.timesteps is not None:
            raise InputError("Both `steps` and `timesteps` were given; give one of them.")
        check_choice("sampler", self.sampler, SAMPLERS)


class SamplingArguments(TypedDict, total=False):
    """Keyword arguments of :class:`SamplingOptions`."""

    steps: int | None
    timesteps: Sequence[int] | None
    sampler: Sampler | None
    seed: int
    tile_overlap: int | None
    back_projection: float | None


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """What computes, and with how much of the machine. The pixels depend on the first two."""

    backend: str = option(
        "auto",
        "Library that runs the network; auto: the first of tensorrt, tensorrt-rtx and "
        "onnxruntime-cuda that works here, else onnxruntime (openvino for bf16 on a CPU); its name "
        "is printed.",
    )
    precision: PrecisionChoice = option(
        "auto",
        "Precision of the network; auto: fp16 on a GPU if the bundle has it, else fp32; never "
        "int8.",
    )
    device: int | None = option(
        None, "GPU to use, counted from 0, where the backend uses one; default: the first."
    )
    threads: int | None = option(
        None, "CPU threads of the network; default and maximum: the CPUs that this process may use."
    )
    batch: int | None = option(
        None, "Number of tiles that are computed at a time; default: what suits the backend."
    )
    trust_engines: bool = option(
        False,
        "Use the TensorRT engines that the bundle lists. They are native code, which runs with "
        "your permissions; default: engines are built here.",
    )

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, BACKENDS)
        check_choice("precision", self.precision, PRECISIONS)
        settle(self, device=whole, threads=positive, batch=positive)
        if self.device is not None and not 0 <= self.device < 1024:
            raise InputError(
                f"There is no GPU {self.device}; give a number from 0 on.", parameter="device"
            )


EXECUTION = tuple(field.name for field in fields(ExecutionOptions))


class ExecutionArguments(TypedDict, total=False):
    """Keyword arguments of :class:`ExecutionOptions` besides ``backend``, which may be an opened
    one where these are used."""

    precision: PrecisionChoice
    device: int | None
    threads: int | None
    batch: int | None
    trust_engines: bool


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which other processes compute, through dask. No pixel depends on the first two."""

    workers: int | None = option(
        None, "Number of processes on this machine that compute; default: only this one."
    )
    scheduler: str | None = option(
        None,
        "Scheduler of dask whose workers compute, in place of processes on this machine: its "
        "address, or the scheduler file.",
    )
    mixed: bool = option(
        False,
        "Also use workers that differ from the others in versions, processor or GPU. Pixels then "
        "depend on which worker computed them, and a tag of the result says so; default: such "
        "workers are left out.",
    )

    def __post_init__(self) -> None:
        settle(self, workers=positive)
        if self.workers and self.scheduler:
            raise InputError(
                "Both `workers` and `scheduler` were given; give one of them.", parameter="workers"
            )
        if self.mixed and not self.is_used:
            raise InputError(
                "`mixed` is about workers and there are none; give `workers` or `scheduler` too.",
                parameter="mixed",
            )

    @property
    def is_used(self) -> bool:
        """Whether other processes compute."""
        return bool(self.workers or self.scheduler)


CLUSTER = tuple(field.name for field in fields(ClusterOptions))


class ClusterArguments(TypedDict, total=False):
    """Keyword arguments of :class:`ClusterOptions`."""

    workers: int | None
    scheduler: str | None
    mixed: bool


class SharpenerArguments(ExecutionArguments, ClusterArguments, total=False):
    """Keyword arguments of a :class:`~ssdiff_trt.runtime.pansharpener.Pansharpener`."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What the result is like."""

    dtype: str | None = option(
        None, "Data type of the result, rounded and clipped; default: that of MS."
    )
    scale: tuple[float, float] | None = option(
        None,
        "Digital numbers that become the smallest and the largest value of the data type of the "
        "result (0 and 1 of float types), such as for 8-bit pictures; default: values are not "
        "changed.",
    )
    driver: str = option("GTiff", "Format of the result.")
    creation_options: Mapping[str, str] = option(
        {}, "Creation options of the driver, such as COMPRESS=ZSTD."
    )
    overviews: bool = option(False, "Add overviews and statistics to the result.")
    overwrite: bool = option(False, "Replace an existing output.")

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("driver", self.driver, DRIVERS)
        if self.scale is not None:
            check_interval("scale", self.scale)


class OutputArguments(TypedDict, total=False):
    """Keyword arguments of :class:`OutputOptions`."""

    dtype: str | None
    scale: tuple[float, float] | None
    driver: str
    creation_options: Mapping[str, str]
    overviews: bool
    overwrite: bool


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """How the work on a scene is split, and how much of it is done. No pixel depends on these."""

    area: Sequence[float] | str | None = option(
        None,
        "Part of the scene to compute, with the same pixels as in the whole result: "
        "MINX,MINY,MAXX,MAXY in the CRS of PAN, or in columns and rows of PAN if it has none; or "
        "a GeoJSON file, whose bounds count.",
    )
    block: int | None = option(
        None,
        "Largest side, in pixels, of the blocks that are computed one after the other, rounded "
        "down to whole tiles; smaller ones need less memory; default: 2016.",
    )
    resume: bool = option(
        True,
        "Keep finished blocks on the disk until the result is complete, and continue an "
        "interrupted run of the same command with them.",
    )
    live: str | None = option(
        None,
        "VRT file to write, which shows the finished blocks during the run, such as in QGIS; it "
        "is removed at the end.",
    )
    uncertainty: str | None = option(
        None,
        "GeoTIFF to write beside the result: the expected absolute error of each of its values, "
        "in digital numbers of MS, as float32.",
    )
    uncertainty_seeds: int = option(
        1,
        "Number of seeds of the noise, from --seed on, whose spread is part of the uncertainty; "
        "the network runs once for each, so N seeds take N times as long.",
    )

    def __post_init__(self) -> None:
        settle(self, block=positive, area=area_of, uncertainty_seeds=positive)
        if self.uncertainty_seeds > 1 and not self.uncertainty:
            raise InputError(
                f"`uncertainty_seeds` is {self.uncertainty_seeds} and there is no `uncertainty` "
                "that they would count in; give that too.",
                parameter="uncertainty_seeds",
            )


class BlockArguments(TypedDict, total=False):
    """Keyword arguments of :class:`BlockOptions`."""

    area: Sequence[float] | str | None
    block: int | None
    resume: bool
    live: str | None
    uncertainty: str | None
    uncertainty_seeds: int


class EvaluateArguments(PairArguments, ExecutionArguments, total=False):
    """Keyword arguments of an evaluation."""

    backend: str


class FuseArguments(ReadArguments, OutputArguments, total=False):
    """Keyword arguments of a classical method."""


class RunArguments(PairArguments, SamplingArguments, OutputArguments, BlockArguments, total=False):
    """Keyword arguments of one run."""
