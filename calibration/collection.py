"""From pairs of rasters to calibration samples of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ssdiff_ref.protocol.simulation import degrade
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_ref.quality.filters import REACH
from ssdiff_trt.calibration.diversity import check_structure, spread, traits
from ssdiff_trt.calibration.picture import draw_samples
from ssdiff_trt.calibration.samples import (
    LEAST_JUDGED,
    LEAST_TILES,
    SUFFIX,
    About,
    Judged,
    Samples,
    check_enough,
    judging_noise,
    weights_digest,
)
from ssdiff_trt.runtime.assumptions import assume
from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import InputError, SSDiffError, counted
from ssdiff_trt.runtime.interpolator import HALO, RATIO, interpolate_with_halo
from ssdiff_trt.runtime.options import PairOptions, SamplingOptions, check_seed
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import require_matplotlib
from ssdiff_trt.runtime.raster.output import check_target
from ssdiff_trt.runtime.raster.registration import offset
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.result import choose_schedule
from ssdiff_trt.runtime.schedule import Sampler, Schedule, sample
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.tiles.batch import Array, Tiles
from ssdiff_trt.runtime.tiles.inputs import fill, prepare
from ssdiff_trt.runtime.tiles.tiling import Axis, Window

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import PairArguments

_CANDIDATES = 8
"""Tiles looked at for each one that is taken, in a large scene."""
_LEAST_VALID = 0.25
"""Of the pixels of a tile, that have data."""
_MARGIN = RATIO * HALO + REACH
"""Pixels of MS around a judged tile that its halo at reduced resolution is made from."""


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
    overwrite: bool = False,
    progress: Progress | None = None,
    **pair: Unpack[PairArguments],
) -> Samples:
    """Run a bundle's own sampler over tiles of real scenes and keep what its network is given.

    Args:
        rasters: PAN and MS, PAN and MS, ...
        output: ``.npz`` to write.
        bundle: whose trajectories; by default the one that comes along for the number of bands.
        sensor: whose MTF blurs MS for the tiles to judge by; the bundle's by default.
        pair: fields of :class:`ssdiff_trt.runtime.options.PairOptions`, of all pairs.
        timesteps: of the trajectories; the bundle's by default. INT8 is calibrated for these.
        sampler: likewise.
        tiles: most tiles to calibrate by, over all pairs; each is recorded at every timestep.
        judged: most tiles to judge by, over all pairs.
        megabytes: that the samples may take; there are fewer tiles if there is not room for all.
        seed: of the noise, and of the candidates in a scene with very many.
        picture: also draw the tiles that were chosen, beside the output.
        overwrite: replace existing files.
        progress: told how work goes.

    Raises:
        SSDiffError: when the pairs cannot be used, show nothing, or give too few tiles.
    """
    progress, target = progress or Progress(), Path(output)
    if not rasters or len(rasters) % 2:
        raise SSDiffError(
            f"{counted(len(rasters), 'raster')} given, expected pairs of PAN and MS; name them PAN "
            "MS PAN MS ..."
        )
    if not megabytes > 0:
        raise SSDiffError(f"--megabytes {megabytes:g} does not work; give a number above 0.")
    for name, value, least in (("tiles", tiles, LEAST_TILES), ("judged", judged, LEAST_JUDGED)):
        if value < least:
            raise SSDiffError(f"--{name} {value} does not work; give {least} or more.")
    options, seed = PairOptions(**pair), check_seed(seed)
    if target.suffix != SUFFIX:
        raise SSDiffError(f"The samples cannot be called {target.name}; end the name in {SUFFIX}.")
    picture_target = target.with_suffix(".png")
    for path in (target, picture_target) if picture else (target,):
        check_target(path, rasters, overwrite)
    if picture:
        require_matplotlib()
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
                collector = _Collector(taken.bundle, schedule, sensor, seed, progress)
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
    progress.note(
        f"{target}: {len(samples.tiles.pan)} tiles to calibrate by, each at "
        f"t = {', '.join(map(str, about.timesteps))}; {len(samples.judged.truth)} to judge by; "
        f"{target.stat().st_size / 1e6:.1f} MB"
    )
    return samples


@dataclass(frozen=True)
class _Ground:
    """Where tiles of a scene may lie: judged blocks like the white fields of a chess board."""

    rows: Axis
    cols: Axis

    @classmethod
    def of(cls, scene: Scene, tile: int) -> _Ground:
        coarse = [Axis(len(grid) // RATIO, tile, 0) for grid in (scene.rows, scene.cols)]
        return cls(*coarse)

    def judged(self) -> list[tuple[int, int]]:
        """First row and column, in pixels of MS, of the blocks to judge by."""
        return [
            (row, col)
            for i, row in enumerate(self.rows.starts)
            for j, col in enumerate(self.cols.starts)
            if (i + j) % 2
            and row + self.rows.tile <= self.rows.size
            and col + self.cols.tile <= self.cols.size
        ]

    def free(self, row: int, col: int) -> bool:
        """Whether a tile that begins at this pixel of PAN lies outside all of them."""
        tile = self.rows.tile
        return not any(
            RATIO * top - tile < row < RATIO * (top + tile)
            and RATIO * left - tile < col < RATIO * (left + tile)
            for top, left in self.judged()
        )


class _Collector:
    """Gathers tiles, pair after pair."""

    def __init__(
        self,
        bundle: Bundle,
        schedule: Schedule,
        sensor: str | None,
        seed: int,
        progress: Progress,
    ) -> None:
        manifest = bundle.manifest
        self.bundle, self._schedule, self._seed = bundle, schedule, seed
        self._sensor: Sensor = fit_sensor(sensor or manifest.sensor.name, manifest.model.bands)
        self._tile, self._progress = manifest.model.tile, progress
        self._backend: Backend = open_backend("auto", bundle, precision="fp32", progress=progress)
        self._random = np.random.default_rng(seed)
        self._candidates: list[Tiles] = []
        self._valid: list[float] = []
        self._places: list[tuple[int, int, int]] = []
        self.judged: list[tuple[Array, Array, Array, Array]] = []
        self._sources: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """What the bands are called."""
        return self.bundle.manifest.sensor.bands

    def take(
        self, scene: Scene, scales: tuple[float, float], *, candidates: int, judged: int
    ) -> None:
        """Look at a scene's tiles to calibrate by, and cut those to judge by."""
        pair, name = len(self._sources), Path(scene.ms.name).name
        self._sources.append(f"{Path(scene.pan.name).name} and {name}")
        ground = _Ground.of(scene, self._tile)
        found = list(self._look(scene, ground, scales, candidates))
        if not found:
            raise SSDiffError(
                f"{self._sources[-1]} leave no tile of {self._tile} x {self._tile} pixels of PAN "
                f"to calibrate by beside the {RATIO * self._tile} x {RATIO * self._tile} to judge "
                "by, expected some with data; give larger images."
            )
        for part, role in ((0, Path(scene.pan.name).name), (1, name)):
            images = [(tile.pan if part == 0 else tile.ms) for tile, *_ in found]
            check_structure(images, role)
        for tile, valid, (row, col) in found:
            self._candidates.append(tile)
            self._valid.append(valid)
            self._places.append((pair, row, col))
        blocks = self._shuffled(ground.judged())
        cut = (self._cut(scene, block, scales) for block in blocks)
        for _, judgement in zip(range(judged), (c for c in cut if c), strict=False):
            self.judged.append(judgement)

    def _shuffled(self, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [places[k] for k in self._random.permutation(len(places))]

    def _look(
        self, scene: Scene, ground: _Ground, scales: tuple[float, float], most: int
    ) -> Iterator[tuple[Tiles, float, tuple[int, int]]]:
        """Tiles with their share of valid pixels and their places, so many at most."""
        rows, cols = (Axis(len(grid), self._tile, 0) for grid in (scene.rows, scene.cols))
        free = [
            (i, j)
            for i, row in enumerate(rows.starts)
            for j, col in enumerate(cols.starts)
            if ground.free(row, col)
        ]
        for i, j in self._shuffled(free)[:most]:
            window = Window(rows, cols, range(i, i + 1), range(j, j + 1))
            inputs = prepare(scene, window, self._seed, *scales)
            valid = float(inputs.valid.mean())
            if inputs.places and valid >= _LEAST_VALID:
                yield inputs.tiles, valid, (rows.starts[i], cols.starts[j])

    def _cut(
        self, scene: Scene, block: tuple[int, int], scales: tuple[float, float]
    ) -> tuple[Array, Array, Array, Array] | None:
        """PAN, lms, MS and truth of a block at reduced resolution, if all of it has data."""
        rows, cols = (
            range(
                grid.start + RATIO * (first - _MARGIN),
                grid.start + RATIO * (first + self._tile + _MARGIN),
            )
            for grid, first in zip((scene.rows, scene.cols), block, strict=True)
        )
        pixels = scene.read(rows, cols)
        inside = np.s_[..., HALO:-HALO, HALO:-HALO]
        ms, ms_valid = pixels.ms[inside], pixels.ms_valid[inside]
        core = np.s_[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        fine = np.s_[..., RATIO * _MARGIN : -RATIO * _MARGIN, RATIO * _MARGIN : -RATIO * _MARGIN]
        if not (ms_valid[core].all() and pixels.pan_valid[fine].all()):
            return None
        ms_lr, pan_lr = degrade(
            fill(ms, ms_valid),
            fill(pixels.pan[None], pixels.pan_valid)[0],
            self._sensor,
            scene.position,
        )
        edge = REACH // RATIO  # of pixels that were blurred with what lies beyond
        haloed = (ms_lr[:, edge:-edge, edge:-edge] / scales[1]).astype(np.float32)
        return (
            (pan_lr[core][None] / scales[0]).astype(np.float32),
            interpolate_with_halo(haloed),
            np.ascontiguousarray(haloed[inside]),
            (ms[core] / scales[1]).astype(np.float32),
        )

    def finish(self, tiles: int, size: float) -> Samples:
        """Choose the tiles and walk their trajectories."""
        bands, side = self.bundle.manifest.model.bands, self._tile
        wide = bands * side**2
        each = 4 * (side**2 + wide + wide // RATIO**2 + wide * len(self._schedule.steps))
        room = size - len(self.judged) * 4 * (side**2 + 2 * wide + wide // RATIO**2)
        every = Tiles(*(np.concatenate(parts) for parts in zip(*self._candidates, strict=True)))
        self.features: NDArray[np.float64] = traits(every, np.array(self._valid))
        self.chosen = spread(self.features, max(0, min(tiles, int(room // each))))
        found = f"With {', '.join(self._sources)} and {size / 1e6:g} MB, this"
        check_enough(len(self.chosen), len(self.judged), found)
        kept = every.part(np.array(self.chosen))
        pan, lms, ms, truth = (np.stack(part) for part in zip(*self.judged, strict=True))
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
        noise = judging_noise(lms.shape, self._seed)
        return Samples(about, kept, self._walk(kept), Judged(Tiles(noise, pan, lms, ms), truth))

    def _walk(self, tiles: Tiles) -> Array:
        """The state at each timestep, ``[T, N, C, tile, tile]``."""
        count = len(tiles.noise)
        states = np.empty((len(self._schedule.steps), *tiles.noise.shape), np.float32)
        with self._progress as progress:
            progress.start("Trajectories", count)
            for k in range(count):
                one = tiles.part(slice(k, k + 1))
                seen: list[Array] = []

                def denoise(
                    x: Array, t: float, one: Tiles = one, seen: list[Array] = seen
                ) -> Array:
                    seen.append(x)
                    return self._backend.denoise(one, x, t)

                sample(denoise, one.lms, one.noise, self._schedule)
                states[:, k] = np.concatenate(seen)
                progress.advance(1)
        return states
