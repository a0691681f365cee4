"""Candidates of an evaluation: classical methods, and bundles behind the same call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ssdiff_ref.classical.baselines import COMPARED, METHODS, find_method
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.simulation import align_pan_to_ms
from ssdiff_ref.quality.checks import Image
from ssdiff_trt.runtime.arrays import ArrayOutput, ArrayPair
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.options import ExecutionOptions, PairOptions, SamplingOptions
from ssdiff_trt.runtime.pansharpener import Pansharpener
from ssdiff_trt.runtime.plan.plan import OpenPair, make_plan
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.registration import measure_arrays, offset
from ssdiff_trt.runtime.raster.uncertainty import OutputWithUncertainty
from ssdiff_trt.runtime.sources import Sink
from ssdiff_trt.runtime.tiles.uncertainty import formula

SHIPPED = "default"
"""Stands for the shipped bundle for the number of bands."""
_EDGE = 12
"""Pixels of MS, more than the interpolator's halo."""


class BundleMethod:
    """A bundle as a method of pairs: a run on arrays.

    It interpolates MS itself, so the ``lms`` of a pair is not used. Edges are wrapped as in the
    protocol's ``lms``, so that the interpolated MS is that very ``lms`` and a result is not judged
    by an edge that it never saw.

    As in a run, the shift between PAN and MS is measured and corrected; but the truth lies where
    MS does, so PAN is moved onto MS. Without a truth the pair is taken as it is: D_s compares with
    PAN and D_lambda with MS, each where it is, and any move makes them worse.

    Args:
        bundle: opened; for the bands of the pairs to come.
        full_scale: of the pairs, both PAN and MS.
        progress: receives the warnings of the runs.
        execution: of the runs.
        sampling: of the runs; the bundle's by default.
    """

    def __init__(
        self,
        bundle: Bundle,
        full_scale: float,
        progress: Progress,
        execution: ExecutionOptions | None = None,
        sampling: SamplingOptions | None = None,
    ) -> None:
        self.bundle, self._progress = bundle, progress
        self._name = f"ssdiff:{bundle.manifest.name}"
        self._pair = PairOptions(full_scale=full_scale, shift="none")
        self._sampling = sampling or SamplingOptions()
        self._sharpener = Pansharpener(bundle, **asdict(execution or ExecutionOptions()))
        self._sharpener.network(bundle)  # fails now, not after other candidates have been judged

    def __call__(self, pair: Pair) -> Image:
        (image,) = self._images(pair)
        return image

    def with_uncertainty(self, pair: Pair) -> tuple[Image, Image]:
        """The image and its uncertainty, both ``[C, H, W]`` in digital numbers."""
        image, uncertainty = self._images(pair, with_uncertainty=True)
        return image, uncertainty

    def _images(self, pair: Pair, with_uncertainty: bool = False) -> list[Image]:
        pan, ms = _wrapped(self.aligned(pair), RATIO * _EDGE), _wrapped(pair.ms, _EDGE)
        # In the protocol's data, as in all that networks are trained on, pixel n of MS lies on
        # pixel 4 n + 2 of PAN, half a pixel further than in grids that fit.
        position = PROTOCOL_POSITION, PROTOCOL_POSITION
        source = ArrayPair(pan.astype(np.float32), ms.astype(np.float32), position=position)
        bands, errors = ArrayOutput(source), ArrayOutput(source)
        sink: Sink = OutputWithUncertainty(bands, errors, formula()) if with_uncertainty else bands
        plan = make_plan(OpenPair(source, sink), self.bundle, self._pair, self._sampling)
        result = self._sharpener.run(plan, Progress())
        for warning in result.warnings:
            self._progress.warn(f"{self._name}: {warning}")
        fine = RATIO * _EDGE
        inner = np.s_[:, fine:-fine, fine:-fine]
        written = (bands, errors) if with_uncertainty else (bands,)
        return [output.image[inner].astype(np.float64) for output in written]

    def aligned(self, pair: Pair) -> Image:
        """PAN where the truth is."""
        if not pair.has_truth:
            return pair.pan
        shift = measure_arrays(pair.pan, pair.ms)
        if not shift.reliable:
            return pair.pan
        self._progress.warn(
            f"{self._name}: MS lies {offset(shift.rounded)} off (measured, ±{shift.error:.2f}); "
            "PAN is moved for it and not for classical methods; `shift=auto` aligns it for all"
        )
        return align_pan_to_ms(pair.pan, shift.rounded)


Method = Callable[[Pair], Image]


def choose_candidates(
    methods: Sequence[str] | None,
    bundles: Sequence[str | Path],
    bands: int,
    full_scale: float,
    progress: Progress,
    execution: ExecutionOptions | None = None,
) -> dict[str, Method]:
    """Methods by the names that tables give them, bundles as ``ssdiff:NAME``.

    Args:
        methods: names of classical ones, in any case; ``COMPARED`` of
            :mod:`ssdiff_ref.classical.baselines` if None.
        bundles: directories, names of shipped bundles, or :data:`SHIPPED`.
        bands: number of bands of the imagery.
        full_scale: of the imagery.
        progress: receives the warnings of the bundles' runs.
        execution: of the bundles' runs.

    Raises:
        SSDiffError: on an unknown method, or a bundle that cannot be used or is for other bands.
    """
    chosen: dict[str, Method] = {}
    for name in COMPARED if methods is None else map(find_method, methods):
        chosen[name] = METHODS[name]
    for given in bundles:
        bundle = bundle_for(bands, None if str(given) == SHIPPED else given)
        name = f"ssdiff:{bundle.manifest.name}"
        if name in chosen:
            raise InputError(
                f"Two bundles are called {bundle.manifest.name}, expected different names; export "
                "one of them under another."
            )
        chosen[name] = BundleMethod(bundle, full_scale, progress, execution)
    return chosen


def _wrapped(image: Image, edge: int) -> Image:
    """``[..., H, W]`` with an edge of so many pixels from the other side."""
    return np.pad(image, [(0, 0)] * (image.ndim - 2) + [(edge, edge)] * 2, mode="wrap")
