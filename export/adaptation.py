"""From a scene and a bundle to a bundle for that scene."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ssdiff_ref.training.adaptation import Adaptation, adapt_weights
from ssdiff_trt.export.bundle import check_bundle_target, defaults_of, export_bundle
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import PairArguments

EXPORT_TILES = 450
"""Evaluations of the network on a tile of 64 pixels that take about as long as an export."""


def adapt(
    pan: str | Path,
    ms: str | Path,
    output: str | Path,
    *,
    bundle: str | Path | None = None,
    sensor: str = "generic",
    minutes: float = 8,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    **pair: Unpack[PairArguments],
) -> Bundle | None:
    """Adapt a bundle to a scene and export the result, if it is better.

    Args:
        pan: panchromatic raster.
        ms: multispectral raster with 4 times the pixel size.
        output: bundle to write, by custom ``NAME.ssdiff``.
        bundle: bundle to start from; default: the shipped one for the number of bands.
        minutes: longest time for all of it, about.
        overwrite: replace an existing bundle.
        sensor, seed, progress, pair: as in
            :func:`ssdiff_ref.training.adaptation.adapt_weights`.

    Returns:
        The new bundle; None, and nothing written, if on held-out blocks of the scene
        the old weights are better by any of ERGAS, SAM and Q2n, or if the time was too short to
        tell.

    Raises:
        SSDiffError: when the scene or the bundle cannot be used.
    """
    progress, target = progress or Progress(), Path(output)
    check_bundle_target(target, overwrite)
    with tempfile.TemporaryDirectory() as folder:
        result = adapt_weights(
            pan,
            ms,
            Path(folder) / f"{target.stem}.safetensors",
            bundle=bundle,
            sensor=sensor,
            minutes=minutes,
            reserve=EXPORT_TILES,
            seed=seed,
            progress=progress,
            **pair,
        )
        if not result.validated:
            progress.warn(
                f"{minutes:g} minutes were enough for {counted(result.iterations, 'iteration')} of "
                "training, too few to compare weights, so nothing was written; give more `minutes`"
            )
            return None
        progress.note(f"{result.bundle.manifest.name} on the held-out blocks: {result.before}")
        progress.note(f"{'adapted'.ljust(len(result.bundle.manifest.name))}: {result.after}")
        if not result.pays:
            progress.warn(
                "Adapting did not improve all of ERGAS, SAM and Q2n, so nothing was written; go on "
                f"with {result.bundle.manifest.name}"
            )
            return None
        return _export(result, target, f"{Path(pan).name} and {Path(ms).name}", overwrite, progress)


def _export(
    result: Adaptation, target: Path, scene: str, overwrite: bool, progress: Progress
) -> Bundle:
    manifest = result.bundle.manifest
    scores = {
        f"{name} of the scene's held-out blocks, {when}": value
        for when, of in (("before", result.before), ("after", result.after))
        for name, value in asdict(of).items()
    }
    given = defaults_of(manifest) | {
        "training_data": f"{manifest.provenance.training_data}; adapted to {scene}",
        # The licence of the scene, and what it says of weights, is not known here.
        "licence": f"not stated; adapted from {manifest.name} ({manifest.provenance.licence})",
        "metrics": scores,
    }
    return export_bundle(
        result.weights,
        manifest.sensor.name,
        target,
        overwrite=overwrite,
        progress=progress,
        **given,
    )
