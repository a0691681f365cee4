"""Evaluation of fusion methods, bundles and fused rasters as one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdiff_ref.evaluation.candidates import BundleMethod, choose_candidates
from ssdiff_ref.evaluation.fused import open_fused
from ssdiff_ref.evaluation.judging import (
    Evaluation,
    score_fused,
    score_methods,
    smallest_size,
)
from ssdiff_ref.evaluation.picture import Gallery
from ssdiff_ref.evaluation.report import as_json, write_csv
from ssdiff_ref.protocol.alignment import align
from ssdiff_ref.protocol.array_files import SUFFIXES, open_arrays
from ssdiff_ref.protocol.datasets import open_pair
from ssdiff_trt.runtime.arguments import changed, none_left, take
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import atomic_write, check_target
from ssdiff_trt.runtime.options import ExecutionOptions, PairOptions
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import check_picture
from ssdiff_trt.runtime.raster.fingerprint import every_file

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import EvaluateArguments


_OF_FUSING = ("bundle", "method", "precision", "shift")
"""Options without effect on fused rasters."""
_OF_A_PAIR = (
    "pan_band",
    "pan_full_scale",
    "pan_nodata",
    "ms_nodata",
    "zero_bands",
    "georeferencing",
)
"""Options of PAN and MS as rasters."""


def evaluate(
    inputs: Sequence[str | Path],
    *,
    sensor: str,
    reference: str | Path | None = None,
    bundles: Sequence[str | Path] = (),
    methods: Sequence[str] | None = None,
    crop: int = 21,
    json: str | Path | None = None,
    csv: str | Path | None = None,
    picture: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Unpack[EvaluateArguments],
) -> Evaluation:
    """Score bundles and classical methods on imagery, or fused rasters against a reference.

    Rasters are held in memory as a whole; scenes of an ``.h5`` are read one at a time.

    Args:
        inputs: one of

            - PAN and MS, rasters of the same area, MS with 4 times the pixel size. At reduced
              resolution they are degraded by Wald's protocol, fused, and compared with the
              original MS; at full resolution they are fused and scored without a reference. If
              there is nodata, the largest rectangle without it is used.
            - a PanCollection ``.h5`` or DLPan-Toolbox ``.mat``; see
              :func:`ssdiff_ref.protocol.array_files.open_arrays`. If it contains ``gt``, results
              are compared with that; otherwise it is treated like PAN and MS.
            - with ``reference``, fused rasters on its grid; only pixels that are valid in all of
              them count.
        sensor: sensor that acquired the imagery, a name of
            :data:`ssdiff_trt.runtime.sensors.SENSORS`.
        reference: raster that fused rasters are compared with.
        bundles: bundles to evaluate: directories, names of shipped bundles, or ``default`` for the
            shipped bundle of the number of bands.
        methods: classical methods to evaluate, names of
            :data:`ssdiff_ref.classical.baselines.METHODS` in any case; by default all but Brovey.
        crop: the DLPan-Toolbox's ``dim_cut``: at reduced resolution this many pixels at the bottom
            and right, and one fewer at the top and left, do not count.
        json: file to write mean scores and settings to.
        csv: file to write every score of every scene to.
        picture: file to draw the first scene at reduced resolution to.
        overwrite: whether to replace existing files.
        progress: receives progress updates.
        options: fields of :class:`ssdiff_trt.runtime.options.PairOptions` and
            :class:`ssdiff_trt.runtime.options.ExecutionOptions`, the latter for bundles. Full
            scale is the peak of PSNR and SSIM, and what bundles divide by. ``shift`` is ``none`` by
            default: all methods get the pair unchanged, and at reduced resolution bundles correct
            the shift that they measure, as a run does; otherwise all get an aligned pair, see
            :func:`ssdiff_ref.protocol.alignment.align`.

    Returns:
        The scores; bundles are called ``ssdiff:NAME``.

    Raises:
        SSDiffError: if the input cannot be used; where possible, before any fusion starts.
    """
    progress = progress or Progress()
    arguments: dict[str, Any] = {"shift": "none", **options}
    pair, execution = take(PairOptions, arguments), take(ExecutionOptions, arguments)
    none_left(arguments, "evaluate")
    _check_options(
        inputs,
        reference,
        {
            **changed(pair),
            **changed(execution),
            "bundle": bundles,
            "method": methods,
            "shift": None if pair.shift == "none" else pair.shift,
        },
    )
    targets = {
        option: Path(path)
        for option, path in (("json", json), ("csv", csv), ("picture", picture))
        if path is not None
    }
    sources = every_file(*inputs, *([reference] if reference else [])) if targets else []
    for option, target in targets.items():
        check_target(target, sources, overwrite, option)
    if picture is not None:
        check_picture(Path(picture))
    settings: dict[str, Any] = {
        "inputs": [str(path) for path in inputs],
        "reference": str(reference) if reference else None,
        **asdict(pair),
        "precision": execution.precision,
    }
    if reference is not None:
        rasters = open_fused(
            inputs,
            reference,
            sensor,
            bands=pair.bands,
            nodata=pair.nodata,
            full_scale=pair.full_scale,
        )
        share = rasters.valid.mean()
        progress.note(f"Full scale {rasters.scale}; {share:.1%} of the pixels are valid in all")
        gallery = Gallery(rasters.sensor) if picture is not None else None
        evaluation = score_fused(rasters, crop=crop, gallery=gallery)
    else:
        dataset = (
            open_arrays(inputs[0], sensor, bands=pair.bands, full_scale=pair.full_scale)
            if len(inputs) == 1
            else open_pair(
                inputs[0],
                inputs[1],
                sensor,
                pair,
                smallest=smallest_size(crop),
                progress=progress,
            )
        )
        kind = "with ground truth" if dataset.simulated else "to be degraded by Wald's protocol"
        progress.note(
            f"{dataset.name}: {dataset.count} scene{'s' * (dataset.count > 1)} of "
            f"{len(dataset.cols)} x {len(dataset.rows)} pixels of PAN, {kind}"
        )
        dataset = align(dataset, pair.shift, progress)
        progress.note(f"Full scale {dataset.scale}; MTF of {dataset.sensor.name}")
        candidates = choose_candidates(
            methods, bundles, len(dataset.sensor.bands), dataset.scale.value, progress, execution
        )
        settings["bundles"] = {
            name: {"path": str(method.bundle.path), "sha256": method.bundle.sha256}
            for name, method in candidates.items()
            if isinstance(method, BundleMethod)
        }
        gallery = Gallery(dataset.sensor) if picture is not None else None
        evaluation = score_methods(
            dataset, candidates, crop=crop, gallery=gallery, progress=progress
        )
    evaluation.settings.update(settings)
    if json is not None:
        with atomic_write(Path(json)) as unfinished:
            unfinished.write_text(as_json(evaluation) + "\n", encoding="utf-8")
    if csv is not None:
        write_csv(evaluation, Path(csv))
    if gallery and picture is not None:
        gallery.draw(Path(picture))
    for target in targets.values():
        progress.note(f"{target}: written")
    return evaluation


def _check_options(
    inputs: Sequence[str | Path],
    reference: str | Path | None,
    stated: Mapping[str, object],
) -> None:
    """Raise an SSDiffError unless the inputs match one use and all options apply to that use."""
    arrays = any(Path(path).suffix.lower() in SUFFIXES for path in inputs)
    use = ""
    unused: tuple[str, ...] = ()
    if reference is not None:
        use, unused = "`reference`", (*_OF_FUSING, *_OF_A_PAIR)
        if not inputs:
            raise InputError("No fused rasters were given, expected one or more; name them.")
    elif len(inputs) == 1 and arrays:
        use, unused = str(inputs[0]), (*_OF_A_PAIR, "nodata")
    elif len(inputs) != 2 or arrays:
        names = ", ".join(map(str, inputs)) or "none"
        raise InputError(
            f"The inputs are {names}, expected PAN and MS, or one .h5 or .mat file, or fused "
            "rasters with `reference`; give one of these."
        )
    for option in unused:
        if stated.get(option) not in (None, ()):
            raise InputError(f"`{option}` has no effect with {use}; leave it out.")
