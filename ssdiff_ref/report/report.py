"""A report of a result: what it looks like, how it was made, and how good it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_ref.report.figures import draw_arrows, draw_map, draw_uncertainty
from ssdiff_ref.report.fused_scene import FusedScene
from ssdiff_ref.report.images import WINDOW, View, view_of_all, view_of_window, window_at
from ssdiff_ref.report.measures import (
    Overview,
    QualityMaps,
    overview_of,
    quality_maps,
)
from ssdiff_ref.report.page import Content, Drawing, html_of
from ssdiff_trt.runtime.arguments import none_left, take
from ssdiff_trt.runtime.errors import InputError, OutputError
from ssdiff_trt.runtime.files import atomic_write, check_target, reading, with_suffix
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.pansharpener import CACHE_BYTES
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.fingerprint import every_file
from ssdiff_trt.runtime.raster.header import descriptions_of
from ssdiff_trt.runtime.raster.image import BandFiles, Raster, name_of, open_raster
from ssdiff_trt.runtime.raster.products import read_product
from ssdiff_trt.runtime.raster.registration import Shift, measure_source, offset
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import WV8, Sensor

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import ReadArguments

Settings = Mapping[str, Sequence[str] | Mapping[str, str]]
"""Sentences, or values by name, below a heading."""

_TAGS = {
    "SSDIFF_VERSION": "Software",
    "SSDIFF_METHOD": "Method",
    "SSDIFF_MODEL": "Network and bundle",
    "SSDIFF_BACKEND": "Backend",
    "SSDIFF_SAMPLER": "Sampler",
    "SSDIFF_STEPS": "Sampling steps",
    "SSDIFF_TIMESTEPS": "Timesteps visited",
    "SSDIFF_SEED": "Seed of the noise",
    "SSDIFF_FULL_SCALE": "Full scale of MS, digital number",
    "SSDIFF_PAN_FULL_SCALE": "Full scale of PAN, digital number",
    "SSDIFF_BANDS": "Bands of MS, in the order of the network",
    "SSDIFF_SHIFT": "MS moved by rows, columns of PAN",
    "SSDIFF_TILE_OVERLAP": "Overlap of tiles, pixels",
    "SSDIFF_BACK_PROJECTION": "Back-projection, share",
    "SSDIFF_SENSOR": "Sensor",
    "SSDIFF_BUNDLE_SHA256": "sha256 of the bundle",
    "SSDIFF_WEIGHTS_SHA256": "sha256 of the weights",
}
"""Tags of a result in plain words."""
_UNKNOWN = (
    "What the run assumed, and how long it took, is not kept in a result, so that the same run "
    "writes the same file; ssdiff-trt run --report shows both."
)
_LABELS = {
    "D_lambda": "D_lambda (0 is best)",
    "D_rho": "D_rho (0 is best)",
    "consistency": "difference from MS, RMS in digital numbers",
}
_CAPTIONS = {
    "D_lambda": "D_lambda: colours that differ from those of MS; does not see missing detail.",
    "D_rho": "D_rho: detail that differs from that of PAN; does not see wrong colours.",
    "consistency": "Consistency: the result put back to the resolution of MS, against MS.",
}


def report(
    result: str | Path,
    pan: Raster,
    ms: Raster | BandFiles | None = None,
    output: str | Path | None = None,
    *,
    uncertainty: str | Path | None = None,
    sensor: str = "generic",
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Unpack[ReadArguments],
) -> Path:
    """Write a page about a result: images, position of MS, maps of quality, provenance.

    Memory does not grow with the scene, and the page has 15 MB at most.

    Args:
        result: raster on the grid of PAN, as a run writes it.
        pan: PAN that it was made from, or without ``ms`` the path of a product that has both.
        ms: MS that it was made from.
        output: page to write, ``.html``; by default beside the result.
        uncertainty: raster of the uncertainty of the result.
        sensor: that acquired the imagery, a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`;
            its MTF is used by the measures and by the classical method.
        overwrite: whether to replace an existing page.
        progress: receives progress updates.
        options: fields of :class:`ssdiff_trt.runtime.options.ReadOptions`, as they were for the
            result. Bands and shift are taken from its tags.

    Returns:
        The page.

    Raises:
        SSDiffError: when an input cannot be used or is no input of the result; without leaving a
            page.
    """
    arguments: dict[str, Any] = dict(options)
    if ms is None:
        if not isinstance(pan, str | Path):
            raise InputError("MS is missing; only the path of a product states it.")
        product = read_product(pan)
        pan, ms = product.pan.path, product.ms.path
        stated = product.options(arguments)
        arguments = {name: stated[name] for name in stated if "full_scale" not in name}
    reading_options = take(ReadOptions, arguments)
    none_left(arguments, "report")
    path = Path(output) if output is not None else with_suffix(result, ".html")
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), Scene(pan, ms, reading_options) as scene:
        files = every_file(scene.pan, scene.ms, result, *([uncertainty] if uncertainty else []))
        check_report(path, files, overwrite)
        with open_raster(result, "result") as image:
            tags: dict[str, str] = image.tags()
            named = descriptions_of(image)
        with reading(f"The tags of {name_of(result)} cannot be read", "make the result again"):
            shift = [float(part) for part in tags.get("SSDIFF_SHIFT", "0,0").split(",")]
            moved = scene.moved(*shift)
            bands = tuple(
                int(band) for band in filter(None, tags.get("SSDIFF_BANDS", "").split(","))
            )
        names = descriptions_of(scene.ms)
        in_order = tuple(names[band - 1] for band in scene.output_bands) == tuple(named)
        if bands and (bands != scene.bands or not in_order):
            raise InputError(
                f"{name_of(result)} does not have the bands and order that MS gives by default; "
                f"pass `bands={','.join(map(str, bands))}`."
            )
        write_report(
            path,
            moved,
            result,
            sensor=fit_sensor(sensor, len(scene.bands)),
            uncertainty=uncertainty,
            settings={"What was done": [_UNKNOWN]},
            progress=progress,
        )
    return path


def check_report(path: Path, sources: Sequence[str], overwrite: bool) -> None:
    """That a page can be written there.

    Raises:
        OutputError: if not.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            f"The report is a page in HTML and {path} is no name for one; end in .html."
        )
    check_target(path, sources, overwrite, "report")


def write_report(
    path: Path,
    scene: Scene,
    result: str | Path,
    *,
    sensor: Sensor,
    names: Sequence[str] = (),
    uncertainty: str | Path | None = None,
    measured: Shift | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page of a result whose pair is open.

    Args:
        path: page to write.
        scene: the pair, MS moved as it was for the result.
        result: raster.
        sensor: whose MTF is assumed for MS.
        names: of the bands, in the order of the network, if they are known.
        uncertainty: raster of its uncertainty.
        measured: shift between PAN and MS; measured here by default.
        settings: what is known of the run, beside the tags of the result.
        progress: receives progress updates.

    Raises:
        SSDiffError: when a raster cannot be read.
    """
    progress = progress or Progress()
    measured = measured or measure_source(scene.moved(0, 0))
    with FusedScene(scene, result, uncertainty) as fused, progress:
        overview = overview_of(fused, progress)
        maps = quality_maps(fused, sensor, progress)
        content = Content(
            title=f"Report of {name_of(result)}",
            summary=_summary(fused, overview),
            bands=_band_names(scene, sensor, names),
            views=list(_views(fused, overview, maps, sensor)),
            place=list(_place(fused, overview, measured)),
            quality=list(_quality(fused, maps, sensor)),
            uncertainty=list(_uncertainty(overview)),
            settings={**(settings or {}), "Provenance": _provenance(fused)},
        )
        page = html_of(content)
    with atomic_write(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    progress.note(f"{path}: report, {path.stat().st_size / 1e6:.1f} MB")


def _band_names(scene: Scene, sensor: Sensor, known: Sequence[str]) -> Sequence[str]:
    """Names of the bands in the order of the network: if possible, such that colours are known."""
    of_file = [name.lower() for name in scene.band_names]
    every = (known, of_file, sensor.bands, WV8)
    fitting = [names for names in every if len(names) == len(scene.bands) and all(names)]
    colours = {"red", "green", "blue"}
    return next((names for names in fitting if colours <= set(names)), fitting[0])


def _summary(fused: FusedScene, overview: Overview) -> str:
    height, width = fused.size
    holes = f", {overview.holes:.1%} of them without data" if overview.holes else ""
    return (
        f"{width} x {height} pixels of PAN{holes}; {fused.bands} bands; made from "
        f"{name_of(fused.pair.pan)} and {fused.pair.name}."
    )


def _views(
    fused: FusedScene, overview: Overview, maps: QualityMaps, sensor: Sensor
) -> Iterator[View]:
    """The whole scene, unless a window is as large, and windows at full resolution, each once."""
    if max(fused.size) > WINDOW:
        yield view_of_all(overview)
    height, width = fused.size
    places = {
        "most detail in PAN": maps.place("detail"),
        "middle of the scene": (height // 2, width // 2),
        "largest uncertainty": maps.place("uncertainty"),
        "largest difference from MS": maps.place("consistency"),
    }
    if fused.has_uncertainty:
        del places["largest difference from MS"]
    titles: dict[tuple[range, range], list[str]] = {}
    for title, place in places.items():
        if place is not None:
            titles.setdefault(window_at(fused.size, place), []).append(title)
    for (rows, cols), several in titles.items():
        middle = (rows.start + rows.stop) // 2, (cols.start + cols.stop) // 2
        yield view_of_window(fused, f"Full resolution: {', '.join(several)}", middle, sensor)


def _place(fused: FusedScene, overview: Overview, measured: Shift) -> Iterator[str | Drawing]:
    shift = fused.pair.shift
    yield f"MS was moved by {offset(shift)}." if any(shift) else "MS was not moved."
    if math.isinf(measured.error):
        yield "The shift between PAN and MS cannot be measured: too little structure."
        return
    yield (
        f"Measured: MS lies {offset(measured.rounded)} off its georeferencing "
        f"(±{measured.error:.2f}). The bands of MS explain {measured.share:.0%} of the variance of "
        "blurred PAN. Positive numbers are down and to the right."
    )
    if not measured.parts:
        yield "No part of the scene has enough structure to measure its own shift."
        return
    origin = [
        start - whole.start for start, whole in zip(fused.origin, fused.pair.whole, strict=True)
    ]
    longest = max(math.hypot(part.rows, part.cols) for part in measured.parts)
    yield Drawing(
        "png",
        draw_arrows(overview, measured, (origin[0], origin[1])),
        f"Arrows over PAN at {len(measured.parts)} places; their shifts differ by up to "
        f"{measured.spread:.2f} pixels of PAN.",
        "Shift of MS relative to its georeferencing in the parts of the scene where it can be "
        f"measured. The longest arrow is {longest:.2f} pixels of PAN, drawn enlarged; 90 % of the "
        f"shifts lie within a range of {measured.spread:.2f} pixels.",
    )


def _quality(fused: FusedScene, maps: QualityMaps, sensor: Sensor) -> Iterator[str | Drawing]:
    if not (maps.rows and maps.cols):
        yield "The scene is too small for maps of quality."
        return
    count = len(maps.rows) * len(maps.cols)
    yield (
        f"Measured in {count} blocks of {maps.side} x {maps.side} pixels that are spread evenly "
        f"over the scene and have {maps.covered:.0%} of its pixels, with the MTF of "
        f"{sensor.name}. There is no ground truth at full resolution, so each measure is blind "
        "to some errors. Light grey: too few valid pixels."
    )
    for measure, label in _LABELS.items():
        values = maps.values[measure][np.isfinite(maps.values[measure])]
        if not values.size:
            yield f"{label}: no block has enough valid pixels."
            continue
        low, middle, high = np.quantile(values, (0, 0.5, 1))
        spread = f"smallest {low:.3g}, median {middle:.3g}, largest {high:.3g}"
        yield Drawing(
            "svg+xml",
            draw_map(maps, measure, fused.size, label),
            f"Map of {label}: {spread}.",
            f"{_CAPTIONS[measure]} Of the blocks: {spread}.",
        )


def _uncertainty(overview: Overview) -> Iterator[str | Drawing]:
    if overview.uncertainty is None:
        yield (
            "There is no file of uncertainty. ssdiff-trt run --uncertainty FILE.tif writes one: "
            "the expected absolute error of each value."
        )
        return
    known = overview.uncertainty[overview.valid]
    middle, high = np.quantile(known, (0.5, 0.98)) if known.size else (math.nan, math.nan)
    spread = f"median {middle:.3g}, 98 % are below {high:.3g}"
    yield Drawing(
        "png",
        draw_uncertainty(overview),
        f"Map of the expected absolute error: {spread}.",
        "Expected absolute error, mean of the bands, in digital numbers of MS. It was calibrated "
        f"at reduced resolution. Of the pixels shown: {spread}.",
    )


def _provenance(fused: FusedScene) -> Mapping[str, str]:
    """Files, and tags of the result in plain words."""
    pair = fused.pair
    files = {"PAN": name_of(pair.pan), "MS": pair.name, "Sizes": pair.describe()}
    tags = {title: fused.tags[tag] for tag, title in _TAGS.items() if tag in fused.tags}
    return {**files, **tags}
