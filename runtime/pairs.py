"""PAN and MS of every kind, opened, and where their result goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssdiff_trt.runtime.arguments import none_left, take
from ssdiff_trt.runtime.arrays import AnyArray, ArrayOutput, ArrayPair
from ssdiff_trt.runtime.data_arrays import DataArrayPair, is_data_array
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import BlockOptions, OutputOptions, PairOptions, SamplingOptions
from ssdiff_trt.runtime.plan.plan import OpenPair
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import quicklook_path
from ssdiff_trt.runtime.raster.area import extent_of
from ssdiff_trt.runtime.raster.image import BandFiles, Raster, name_of
from ssdiff_trt.runtime.raster.live import LiveView
from ssdiff_trt.runtime.raster.output import RasterOutput
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.raster.spool import SpooledOutput
from ssdiff_trt.runtime.raster.uncertainty import OutputWithUncertainty, UncertaintyRaster
from ssdiff_trt.runtime.sources import Rectangle, Sink
from ssdiff_trt.runtime.tiles.uncertainty import formula
from ssdiff_trt.runtime.uploads import Upload, is_url


@dataclass(frozen=True)
class RunOptions:
    """The options of one run, in their groups."""

    pair: PairOptions
    sampling: SamplingOptions
    writing: OutputOptions
    splitting: BlockOptions
    quicklook: bool
    """Whether a picture is drawn beside the result."""

    @classmethod
    def of(cls, arguments: dict[str, Any], quicklook: bool) -> RunOptions:
        """Make the groups of keyword arguments, which are removed.

        Raises:
            InputError: if a value does not work.
            TypeError: if an argument belongs to no group.
        """
        pair, sampling = take(PairOptions, arguments), take(SamplingOptions, arguments)
        writing, splitting = take(OutputOptions, arguments), take(BlockOptions, arguments)
        none_left(arguments, "pansharpen")
        for name, value in (("uncertainty", splitting.uncertainty), ("live", splitting.live)):
            if value is not None and is_url(value):
                raise InputError(
                    f"{value} is a URL, and only `output` can be one; give a file.", parameter=name
                )
        return cls(pair, sampling, writing, splitting, quicklook)


def are_arrays(pan: object, ms: object) -> bool:
    """Whether PAN and MS are two arrays of numpy, or two of xarray.

    Raises:
        InputError: if MS is missing, or the two are not of one kind.
    """
    of_numpy = [isinstance(each, np.ndarray) for each in (pan, ms)]
    of_xarray = [is_data_array(each) for each in (pan, ms)]
    if all(of_numpy) or all(of_xarray):
        return True
    if ms is None:
        raise InputError("MS is missing; only the path of a product states it.")
    if any((*of_numpy, *of_xarray)):
        raise InputError("PAN and MS are an array and a raster; give two of one kind.")
    return False


def open_arrays(
    pan: AnyArray, ms: AnyArray, output: str | Path | None, options: RunOptions
) -> OpenPair:
    """A pair of arrays, of numpy or xarray, whose result is an array.

    Raises:
        SSDiffError: if the two do not make a pair, or an option is for rasters.
    """
    writing, splitting = options.writing, options.splitting
    if output is not None or options.quicklook:
        raise InputError(
            "Arrays have no georeferencing to write; leave `output` and `quicklook` out, the fused "
            "image is returned."
        )
    if splitting.area is not None or splitting.live is not None:
        raise InputError("Arrays have no coordinates; leave `area` and `live` out.")
    if splitting.uncertainty:
        raise InputError(
            "The uncertainty is written as a raster and PAN and MS are arrays; leave `uncertainty` "
            "out, or give rasters."
        )
    kind = DataArrayPair if is_data_array(pan) else ArrayPair
    source = kind(pan, ms, options.pair)
    return OpenPair(source, ArrayOutput(source, writing.dtype, writing.scale))


@contextmanager
def open_rasters(
    pan: Raster,
    ms: Raster | BandFiles,
    output: str | Path | None,
    options: RunOptions,
    progress: Progress,
) -> Iterator[OpenPair]:
    """Open a pair of rasters, whose result is a file, which can go to a URL.

    Raises:
        SSDiffError: if the two do not make a pair, or the result cannot be written.
    """
    writing, splitting = options.writing, options.splitting
    upload = None
    if output is not None and is_url(output):
        upload = Upload(str(output), writing.overwrite)
        output, writing = upload.local, replace(writing, overwrite=True)
    path = Path(output or default_output(name_of(ms)))
    with Scene(pan, ms, options.pair) as scene:
        extent = None
        if splitting.area is not None:
            extent, beyond = extent_of(splitting.area, scene)
            if beyond:
                progress.note("The area reaches beyond the scene; the part inside is made")
        yield OpenPair(
            scene,
            _sink(path, scene, writing, splitting, extent),
            output=path,
            uncertainty=Path(splitting.uncertainty) if splitting.uncertainty else None,
            quicklook=quicklook_path(path, scene, writing.overwrite) if options.quicklook else None,
            extent=extent,
            upload=upload,
        )


def _sink(
    path: Path,
    scene: Scene,
    writing: OutputOptions,
    splitting: BlockOptions,
    extent: Rectangle | None,
) -> Sink:
    """What writes the file of the result, and that of its uncertainty if there is to be one."""
    raster = RasterOutput(path, scene, writing, extent)
    live = None
    if splitting.live is not None:
        live = LiveView(splitting.live, raster.inputs, writing.overwrite)
    sink = SpooledOutput(raster, splitting.resume, live)
    if not splitting.uncertainty:
        return sink
    errors = UncertaintyRaster(splitting.uncertainty, raster, scene, writing, extent)
    beside = SpooledOutput(errors, splitting.resume)
    described = formula(splitting.uncertainty_seeds)
    return OutputWithUncertainty(sink, beside, described, (raster.path, errors.path))


def default_output(ms: str) -> str:
    """Name of the result of an MS image, in the current directory."""
    return f"{Path(ms).stem}_pansharpened.tif"
