"""Who is judged: classical methods, and bundles behind the same call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

from ssdiff_ref.classical.baselines import COMPARED, METHODS, find_method
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.simulation import align_pan_to_ms
from ssdiff_ref.quality.checks import Image
from ssdiff_trt.runtime.backends.protocol import PrecisionChoice
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.pansharpen import pansharpen
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.registration import measure_arrays, offset

SHIPPED = "default"
"""Stands for the bundle that comes along for the number of bands."""
_EDGE = 12
"""Pixels of MS, more than the interpolator's halo."""


class BundleMethod:
    """A bundle as a method of pairs, by what a user gets: a run from rasters to a raster.

    It interpolates MS itself, so the ``lms`` of a pair is not used. The pair goes on around its
    edges as the protocol's ``lms`` does, so that what is interpolated is that very ``lms``, and
    its edges are not held against a method that never saw it.

    As in a run, the shift between PAN and MS is measured and made up for; but the truth lies where
    MS does, so PAN is brought onto MS. Without a truth the pair is taken as it is: D_s compares
    with PAN and D_lambda with MS, each where it is, and punishes any move.

    Args:
        bundle: opened; for the bands of the pairs to come.
        full_scale: of the pairs, both PAN and MS.
        progress: gets the warnings of the runs.
        precision: of the network; see :func:`ssdiff_trt.runtime.backends.registry.open_backend`.
        sampling: ``timesteps``, ``sampler`` or ``seed`` of the runs, if not the bundle's.
    """

    def __init__(
        self,
        bundle: Bundle,
        full_scale: float,
        progress: Progress,
        precision: PrecisionChoice = "auto",
        **sampling: Any,
    ) -> None:
        self.bundle, self._full_scale, self._sampling = bundle, full_scale, sampling
        self._progress = _WarningsOf(f"ssdiff:{bundle.manifest.name}", progress)
        self._backend = open_backend("auto", bundle, precision=precision)

    def __call__(self, pair: Pair) -> Image:
        pan, ms = self._aligned(pair), _wrapped(pair.ms, _EDGE)
        pan = _wrapped(pan, RATIO * _EDGE)
        pan_grid = Affine.translation(0, pan.shape[0]) * Affine.scale(1, -1)
        # A run takes MS where its georeferencing says. In the protocol's data, as in all that
        # networks are trained on, pixel n of MS lies on pixel 4 n + 2 of PAN, half a pixel further
        # than in grids that fit; every other method relies on it, so here it is told.
        half = PROTOCOL_POSITION - GROUND_POSITION
        ms_grid = pan_grid * Affine.translation(half, half) * Affine.scale(RATIO)
        with TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("pan.tif", "ms.tif", "fused.tif")]
            _write(files[0], pan[None], pan_grid)
            _write(files[1], ms, ms_grid)
            pansharpen(
                *files,
                bundle=self.bundle,
                backend=self._backend,
                full_scale=self._full_scale,
                shift="none",
                progress=self._progress,
                **self._sampling,
            )
            with rasterio.open(files[2]) as file:
                result: Image = file.read(out_dtype=np.float64)
        fine = RATIO * _EDGE
        return result[:, fine:-fine, fine:-fine]

    def _aligned(self, pair: Pair) -> Image:
        """PAN where the truth is."""
        if not pair.has_truth:
            return pair.pan
        found = measure_arrays(pair.pan, pair.ms)
        if not found.reliable:
            return pair.pan
        self._progress.say(
            f"MS lies {offset(found.rounded)} off (measured, ±{found.error:.2f}); PAN is moved"
        )
        return align_pan_to_ms(pair.pan, found.rounded)


Method = Callable[[Pair], Image]


def choose_candidates(
    methods: Sequence[str] | None,
    bundles: Sequence[str | Path],
    bands: int,
    full_scale: float,
    progress: Progress,
    precision: PrecisionChoice = "auto",
) -> dict[str, Method]:
    """Methods by the names that tables give them, bundles as ``ssdiff:NAME``.

    Args:
        methods: names of classical ones, in any case; ``COMPARED`` of
            :mod:`ssdiff_ref.classical.baselines` if None.
        bundles: directories, names of bundles that come along, or :data:`SHIPPED`.
        bands: of the imagery.
        full_scale: of the imagery.
        progress: gets the warnings of the bundles' runs.
        precision: of the bundles' networks.

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
            raise SSDiffError(
                f"Two bundles are called {bundle.manifest.name}, expected different names; export "
                "one of them under another."
            )
        chosen[name] = BundleMethod(bundle, full_scale, progress, precision)
    return chosen


class _WarningsOf(Progress):
    """Passes on warnings alone, and says whose they are."""

    def __init__(self, name: str, to: Progress) -> None:
        super().__init__()
        self._name, self._to = name, to

    def warn(self, text: str) -> None:
        self._to.warn(f"{self._name}: {text}")

    def say(self, text: str) -> None:
        """What the run itself does not know."""
        self._to.note(f"{self._name}: {text}")


def _wrapped(image: Image, edge: int) -> Image:
    """``[..., H, W]`` with an edge of so many pixels from the other side."""
    return np.pad(image, [(0, 0)] * (image.ndim - 2) + [(edge, edge)] * 2, mode="wrap")


def _write(path: Path, values: Image, grid: Affine) -> None:
    count, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype="float32",
        transform=grid,
    ) as file:
        file.write(values.astype(np.float32))
