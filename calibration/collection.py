"""Collection of calibration samples of a bundle from pairs of rasters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ssdiff_ref.protocol.simulation import degrade
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_ref.quality.filters import REACH
from ssdiff_trt.calibration.blocks import Blocks
from ssdiff_trt.calibration.diversity import check_structure, select_diverse, tile_features
from ssdiff_trt.calibration.picture import draw_samples
from ssdiff_trt.calibration.samples import (
    LEAST_JUDGED,
    LEAST_TILES,
    SUFFIX,
    SURE_JUDGED,
    About,
    EvaluationTiles,
    Samples,
    check_enough,
    evaluation_noise,
    weights_digest,
)
from ssdiff_trt.runtime.arguments import check_seed
from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.files import check_target
from ssdiff_trt.runtime.interpolator import HALO, RATIO, interpolate_with_halo
from ssdiff_trt.runtime.memory import check_memory
from ssdiff_trt.runtime.options import PairOptions, Sampler, SamplingOptions
from ssdiff_trt.runtime.plan.assumptions import assume
from ssdiff_trt.runtime.plan.plan import choose_schedule
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import require_matplotlib
from ssdiff_trt.runtime.raster.fingerprint import every_file
from ssdiff_trt.runtime.raster.registration import offset
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.schedule import Schedule, sample
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.tiles.batch import Array, Tiles
from ssdiff_trt.runtime.tiles.inputs import fill, prepare
from ssdiff_trt.runtime.tiles.tiling import Axis, Block

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import PairArguments

_CANDIDATES = 8
"""Candidate tiles per calibration tile, where a scene is large enough."""
_PLACE = 120
"""Bytes of the place of a tile in a list."""
_MIN_VALID = 0.25
"""Least share of valid pixels in a calibration tile."""
_MARGIN = RATIO * HALO + REACH
"""Pixels of MS around an evaluation tile, from which its halo at reduced resolution is computed."""


def collect(
    rasters: Sequence[str | Path],
    output: str | Path,
    *,
    bundle: str | Path | Bundle | None = None,
    sensor: str | None = None,
    timesteps: Sequence[int] | None = None,
    sampler: Sampler | None = None,
    tiles: int = 64,
    judged: int = 32,
    megabytes: float = 64,
    seed: int = 0,
    picture: bool = True,
    trust_engines: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **pair: Unpack[PairArguments],
) -> Samples:
    """Sample tiles of real scenes with a bundle, and record the inputs of its network.

    Args:
        rasters: PAN and MS, PAN and MS, ...
        output: ``.npz`` to write.
        bundle: bundle whose trajectories are recorded; default: the shipped one for the number of
            bands.
        sensor: sensor whose MTF degrades the evaluation tiles; default: the bundle's.
        timesteps: timesteps of the trajectories, for which INT8 is calibrated; default: the
            bundle's.
        sampler: sampler of the trajectories; default: the bundle's.
        tiles: largest number of calibration tiles over all pairs; each is recorded at every
            timestep.
        judged: largest number of evaluation tiles over all pairs.
        megabytes: largest size of the samples, MB; there are fewer tiles if they do not fit.
        seed: seed of the noise, and of the selection of candidate tiles in large scenes.
        picture: whether to draw the chosen tiles beside the output.
        trust_engines: whether to load TensorRT engines, native code, that the bundle lists.
        overwrite: whether to replace existing files.
        progress: receives progress updates.
        pair: fields of :class:`ssdiff_trt.runtime.options.PairOptions`, for all pairs.

    Raises:
        SSDiffError: if the pairs cannot be used, have no structure, or give too few tiles.
    """
    progress, target = progress or Progress(), Path(output)
    if not rasters or len(rasters) % 2:
        raise InputError(
            f"{counted(len(rasters), 'raster')} given, expected pairs of PAN and MS; name them PAN "
            "MS PAN MS ..."
        )
    if not megabytes > 0:
        raise InputError(
            f"{megabytes:g} megabytes do not work; give a number above 0.", parameter="megabytes"
        )
    for name, value, least in (("tiles", tiles, LEAST_TILES), ("judged", judged, LEAST_JUDGED)):
        if value < least:
            raise InputError(f"{value} does not work; give {least} or more.", parameter=name)
    options, seed = PairOptions(**pair), check_seed(seed)
    if target.suffix.lower() != SUFFIX:
        raise InputError(f"The samples cannot be called {target.name}; end the name in {SUFFIX}.")
    picture_target = target.with_suffix(".png")
    sources = every_file(*rasters)
    for path in (target, picture_target) if picture else (target,):
        check_target(path, sources, overwrite)
    if picture:
        require_matplotlib()
    opener = partial(open_backend, "auto", precision="fp32", trust_engines=trust_engines)
    collector: _Collector | None = None
    pairs = list(zip(rasters[::2], rasters[1::2], strict=True))
    for index, (pan, ms) in enumerate(pairs):
        with Scene(pan, ms, options) as scene:
            expected = collector.bundle.manifest.model.bands if collector else len(scene.bands)
            if len(scene.bands) != expected:
                raise InputError(
                    f"{ms} gives {counted(len(scene.bands), 'band')}, expected the {expected} of "
                    "the pair before; choose them with `bands`, or collect it on its own."
                )
            taken = assume(scene, collector.bundle if collector else bundle, options)
            if any(taken.shift):
                progress.note(f"MS of {Path(ms).name} is moved by {offset(taken.shift)}")
            for warning in taken.warnings:
                progress.warn(warning)
            if collector is None:
                schedule = choose_schedule(
                    taken.bundle, SamplingOptions(timesteps=timesteps, sampler=sampler)
                )
                collector = _Collector(taken.bundle, schedule, sensor, seed, progress, opener)
            left = len(pairs) - index  # pairs that share what is still to be found
            collector.take(
                taken.source,
                (taken.pan_scale.value, taken.ms_scale.value),
                candidates=_CANDIDATES * -(-tiles // len(pairs)),
                judged=-(-(judged - len(collector.judged)) // left),
            )
    assert collector is not None
    samples = collector.finish(tiles, megabytes * 1e6)
    samples.save(target)
    if picture:
        draw_samples(samples, collector.features, collector.chosen, collector.names, picture_target)
    about = samples.about
    if len(samples.judged.truth) < SURE_JUDGED:
        progress.note(
            f"Half of {counted(len(samples.judged.truth), 'evaluation tile')} will judge INT8, "
            f"which is few: other places may lose more; collect {SURE_JUDGED} or more from larger "
            "or several images"
        )
    progress.note(
        f"{target}: {len(samples.tiles.pan)} calibration tiles, each at "
        f"t = {', '.join(map(str, about.timesteps))}; {len(samples.judged.truth)} evaluation "
        f"tiles; {target.stat().st_size / 1e6:.1f} MB"
    )
    return samples


class _Collector:
    """Collects tiles from one pair of rasters after another."""

    def __init__(
        self,
        bundle: Bundle,
        schedule: Schedule,
        sensor: str | None,
        seed: int,
        progress: Progress,
        opener: Callable[..., Backend],
    ) -> None:
        manifest = bundle.manifest
        self.bundle, self._schedule, self._seed = bundle, schedule, seed
        self._sensor: Sensor = fit_sensor(sensor or manifest.sensor.name, manifest.model.bands)
        self._tile, self._progress = manifest.model.tile, progress
        self._backend = opener(bundle, progress=progress)
        self._random = np.random.default_rng(seed)
        self._candidates: list[Tiles] = []
        self._valid: list[float] = []
        self._places: list[tuple[int, int, int]] = []
        self.judged: list[tuple[Array, Array, Array, Array]] = []
        self._sources: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the MS bands."""
        return self.bundle.manifest.sensor.bands

    def take(
        self, scene: Scene, scales: tuple[float, float], *, candidates: int, judged: int
    ) -> None:
        """Add candidates for calibration tiles, and evaluation tiles, from a scene.

        Args:
            scene: the pair of rasters.
            scales: full scale of PAN and of MS, in digital numbers.
            candidates: most candidate tiles to add.
            judged: most evaluation tiles to add.

        Raises:
            SSDiffError: if there is no candidate, or PAN or MS are not imagery.
        """
        pan_name, ms_name = Path(scene.pan.name).name, Path(scene.ms.name).name
        pair = len(self._sources)
        self._sources.append(f"{pan_name} and {ms_name}")
        check_memory(
            _PLACE * len(scene.rows) * len(scene.cols) / self._tile**2,
            f"Choosing tiles from {len(scene.cols)} x {len(scene.rows)} pixels of {pan_name}",
            "cut out a smaller area of PAN and MS with gdal_translate -projwin",
        )
        blocks = Blocks.of_scene(scene, self._tile)
        tiles = list(self._calibration_tiles(scene, blocks, scales, candidates))
        if not tiles:
            raise InputError(
                f"{self._sources[-1]} have no tile of {self._tile} x {self._tile} pixels of PAN "
                f"with data outside the evaluation blocks of {RATIO * self._tile} x "
                f"{RATIO * self._tile} pixels, expected at least one; give larger images."
            )
        check_structure([tile.pan for tile, *_ in tiles], pan_name)
        check_structure([tile.ms for tile, *_ in tiles], ms_name)
        for tile, valid, (row, col) in tiles:
            self._candidates.append(tile)
            self._valid.append(valid)
            self._places.append((pair, row, col))
        cut = (
            self._evaluation_tile(scene, block, scales)
            for block in self._shuffled(blocks.evaluation())
        )
        for _, evaluation in zip(range(judged), (c for c in cut if c), strict=False):
            self.judged.append(evaluation)

    def _shuffled(self, places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        return ((int(row), int(col)) for row, col in self._random.permutation(places))

    def _calibration_tiles(
        self, scene: Scene, blocks: Blocks, scales: tuple[float, float], most: int
    ) -> Iterator[tuple[Tiles, float, tuple[int, int]]]:
        """Up to ``most`` tiles, each with its share of valid pixels and first row and column."""
        rows, cols = (Axis(len(grid), self._tile, 0) for grid in (scene.rows, scene.cols))
        for i, j in islice(self._shuffled(blocks.outside(rows, cols)), most):
            place = range(*rows.begins[i : i + 2]), range(*cols.begins[j : j + 2])
            (window,) = Block(rows, cols, place).windows(self._tile)
            inputs = prepare(scene, window, self._seed, *scales)
            valid = float(inputs.valid.mean())
            if inputs.places and valid >= _MIN_VALID:
                yield inputs.tiles, valid, (rows.starts[i], cols.starts[j])

    def _evaluation_tile(
        self, scene: Scene, block: tuple[int, int], scales: tuple[float, float]
    ) -> tuple[Array, Array, Array, Array] | None:
        """PAN, lms, MS and reference of a block at reduced resolution; None if pixels are missing.

        ``[1, tile, tile]``, ``[C, tile, tile]``, ``[C, tile / 4, tile / 4]`` and
        ``[C, tile, tile]``, 0..1 of full scale.
        """
        rows, cols = (
            range(
                grid.start + RATIO * (first - _MARGIN),
                grid.start + RATIO * (first + self._tile + _MARGIN),
            )
            for grid, first in zip((scene.rows, scene.cols), block, strict=True)
        )
        pixels = scene.read(rows, cols)
        part = pixels.ms_under()
        ms, ms_valid = part.inner, part.inner_valid
        core = np.s_[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        fine = np.s_[..., RATIO * _MARGIN : -RATIO * _MARGIN, RATIO * _MARGIN : -RATIO * _MARGIN]
        if not (ms_valid[core].all() and pixels.pan_valid[fine].all()):
            return None
        ms_lr, pan_lr = degrade(
            fill(ms, ms_valid),
            fill(pixels.pan[None], pixels.pan_valid)[0],
            self._sensor,
            part.position,
        )
        # The filter of these border pixels reaches beyond the pixels that were read.
        edge = REACH // RATIO
        haloed = (ms_lr[:, edge:-edge, edge:-edge] / scales[1]).astype(np.float32)
        return (
            (pan_lr[core][None] / scales[0]).astype(np.float32),
            interpolate_with_halo(haloed),
            np.ascontiguousarray(haloed[..., HALO:-HALO, HALO:-HALO]),
            (ms[core] / scales[1]).astype(np.float32),
        )

    def finish(self, tiles: int, size: float) -> Samples:
        """Choose the calibration tiles and sample their trajectories.

        Args:
            tiles: most calibration tiles.
            size: most bytes of all arrays of the samples.

        Raises:
            SSDiffError: if there are too few tiles of either kind.
        """
        bands, side = self.bundle.manifest.model.bands, self._tile
        values = bands * side**2
        tile_bytes = 4 * (
            side**2 + values + values // RATIO**2 + values * len(self._schedule.steps)
        )
        evaluation_bytes = 4 * (side**2 + 2 * values + values // RATIO**2)
        available = size - len(self.judged) * evaluation_bytes
        candidates = Tiles(
            *(np.concatenate(arrays) for arrays in zip(*self._candidates, strict=True))
        )
        self.features: NDArray[np.float64] = tile_features(candidates, np.array(self._valid))
        self.chosen = select_diverse(
            self.features, max(0, min(tiles, int(available // tile_bytes)))
        )
        source = f"{', '.join(self._sources)} with at most {size / 1e6:g} MB"
        check_enough(len(self.chosen), len(self.judged), source)
        chosen = candidates.part(np.array(self.chosen))
        pan, lms, ms, truth = (np.stack(arrays) for arrays in zip(*self.judged, strict=True))
        about = About(
            bundle=self.bundle.manifest.name,
            weights=weights_digest(self.bundle),
            bands=bands,
            tile=side,
            sampler=self._schedule.sampler,
            timesteps=self._schedule.timesteps,
            seed=self._seed,
            sources=tuple(self._sources),
            places=tuple(self._places[k] for k in self.chosen),
        )
        noise = evaluation_noise(lms.shape, self._seed)
        evaluation = EvaluationTiles(Tiles(noise, pan, lms, ms), truth)
        return Samples(about, chosen, self._sample_states(chosen), evaluation)

    def _sample_states(self, tiles: Tiles) -> Array:
        """Sample each tile; the input state at each timestep, ``[T, N, C, tile, tile]``."""
        count = len(tiles.noise)
        states = np.empty((len(self._schedule.steps), *tiles.noise.shape), np.float32)
        with self._progress as progress:
            progress.start("Trajectories", count)
            for k in range(count):
                one = tiles.part(slice(k, k + 1))
                inputs: list[Array] = []

                def denoise(
                    x: Array, t: float, one: Tiles = one, inputs: list[Array] = inputs
                ) -> Array:
                    inputs.append(x)
                    return self._backend.denoise(one, x, t)

                sample(denoise, one.lms, one.noise, self._schedule)
                states[:, k] = np.concatenate(inputs)
                progress.advance(1)
        return states
