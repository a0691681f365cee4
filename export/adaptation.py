"""From scenes of a sensor and a bundle to a bundle for that sensor."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssdiff_ref.training.adaptation import Adaptation, Part, adapt_weights
from ssdiff_ref.training.held_out import MEASURES, REDUCED, means
from ssdiff_trt.export.bundle import check_bundle_target, defaults_of, export_bundle
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.scenes import SceneEntry

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import PairArguments

EXPORT_TILES = 450
"""Evaluations of the network on a tile of 64 pixels that take about as long as an export."""


def adapt(
    scenes: Sequence[SceneEntry],
    output: str | Path,
    *,
    bundle: str | Path | None = None,
    sensor: str = "generic",
    part: Part = "all",
    minutes: float = 8,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    **pair: Unpack[PairArguments],
) -> Bundle | None:
    """Adapt a bundle to scenes of one sensor and export the result, if it is better.

    Args:
        scenes: one or more pairs of PAN and MS; their outputs are not used.
        output: bundle to write, by custom ``NAME.ssdiff``.
        bundle: bundle to start from; default: the shipped one for the number of bands.
        minutes: longest time for all of it, export included, about.
        overwrite: replace an existing bundle.
        sensor, part, seed, progress, pair: as in
            :func:`ssdiff_ref.training.adaptation.adapt_weights`.

    Returns:
        The new bundle; None, and nothing written, if on held-out blocks of the scenes the new
        weights are not better by each of ERGAS, SAM and Q2n at reduced resolution, or are worse by
        R-ERGAS, D_rho or detail correlation at full resolution, or if the time was too short for
        a verdict.

    Raises:
        SSDiffError: when the scenes or the bundle cannot be used.
    """
    progress, target = progress or Progress(), Path(output)
    check_bundle_target(target, overwrite)
    with tempfile.TemporaryDirectory() as folder:
        result = adapt_weights(
            scenes,
            Path(folder) / f"{target.stem}.safetensors",
            bundle=bundle,
            sensor=sensor,
            part=part,
            minutes=minutes,
            reserve=EXPORT_TILES,
            seed=seed,
            progress=progress,
            **pair,
        )
        name = result.bundle.manifest.name
        if not result.validated:
            progress.warn(
                f"{minutes:g} minutes were enough for {counted(result.iterations, 'iteration')} of "
                "training, too few to compare weights, so nothing was written; give more `minutes`"
            )
            return None
        for line in result.verdict.table((name, target.stem)):
            progress.note(line)
        progress.note(result.verdict.certainty)
        if not result.pays:
            worse = ", ".join(result.verdict.worse)
            progress.warn(
                f"Adapting did not improve {worse}, so nothing was written; go on with {name}"
            )
            return None
        return export_adaptation(result, target, scenes, overwrite=overwrite, progress=progress)


def _names(scenes: Sequence[SceneEntry]) -> str:
    """What the weights were adapted to, for the manifest."""
    first = scenes[0]
    files = " and ".join(Path(name).name for name in (first.pan, *first.ms[:1]))
    others = len(scenes) - 1
    return f"{files} and {counted(others, 'other scene')}" if others else files


def export_adaptation(
    result: Adaptation,
    output: str | Path,
    scenes: Sequence[SceneEntry],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Export adapted weights with the settings of the bundle that they come from.

    Args:
        result: from :func:`ssdiff_ref.training.adaptation.adapt_weights`.
        output: bundle to write.
        scenes: what the weights were adapted to; the manifest names them.
        overwrite: replace an existing bundle.
        progress: receives progress updates.

    Raises:
        SSDiffError: if the bundle cannot be written, or the parity check fails.
    """
    manifest, verdict = result.bundle.manifest, result.verdict
    scores = {
        f"{measure.name} of held-out blocks at {resolution} resolution, {when}": float(value)
        for when, values in (("before", verdict.before), ("after", verdict.after))
        for measure, value in zip(MEASURES, means(values), strict=True)
        for resolution in ["reduced" if measure in REDUCED else "full"]
    }
    given = defaults_of(manifest) | {
        "training_data": f"{manifest.provenance.training_data}; adapted to {_names(scenes)}",
        # The licence of the scene, and what it says of weights, is not known here.
        "licence": f"not stated; adapted from {manifest.name} ({manifest.provenance.licence})",
        "metrics": scores,
    }
    return export_bundle(
        result.weights,
        manifest.sensor.name,
        output,
        overwrite=overwrite,
        progress=progress,
        **given,
    )
