"""Pansharpening a scene: read a window, sample its tiles, blend them, write."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from ssdiff_trt.cli.messages import tell_assumptions, tell_result
from ssdiff_trt.runtime.backends.guard import Guarded
from ssdiff_trt.runtime.backends.protocol import Backend, PrecisionChoice
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import draw_quicklook, require_matplotlib
from ssdiff_trt.runtime.raster.output import Output, check_target
from ssdiff_trt.runtime.raster.radiometry import choose_scale
from ssdiff_trt.runtime.raster.registration import ShiftChoice, choose_shift
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.result import Result
from ssdiff_trt.runtime.schedule import Sampler, Schedule, make_schedule, spaced_timesteps
from ssdiff_trt.runtime.tiles.batch import Tiles
from ssdiff_trt.runtime.tiles.canvas import Canvas
from ssdiff_trt.runtime.tiles.inputs import WindowInputs, prepare
from ssdiff_trt.runtime.tiles.noise import check_seed
from ssdiff_trt.runtime.tiles.tiling import Axis, Window, windows

CACHE_BYTES = 64 << 20
"""What GDAL may keep of decoded and unwritten blocks; its own default grows with the machine."""


def pansharpen(
    pan: str | Path,
    ms: str | Path,
    output: str | Path | None = None,
    *,
    bundle: str | Path | Bundle | None = None,
    bands: Sequence[int] | None = None,
    pan_band: int | None = None,
    full_scale: float | None = None,
    pan_full_scale: float | None = None,
    nodata: float | None = None,
    shift: ShiftChoice = "auto",
    steps: int | None = None,
    timesteps: Sequence[int] | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    tile_overlap: int = 16,
    batch: int | None = None,
    window: int = 768,
    threads: int | None = None,
    backend: str | Backend = "auto",
    precision: PrecisionChoice = "auto",
    dtype: str | None = None,
    driver: str = "GTiff",
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quicklook: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Pansharpen ``pan`` and ``ms`` into ``output``.

    Args:
        pan: panchromatic raster.
        ms: multispectral raster with 4 times the pixel size.
        output: GeoTIFF to write; by default ``MS_pansharpened.tif`` in the current directory.
        bundle: directory, name of a bundle that comes along, or an opened one; by default the one
            that comes along for the number of bands.
        bands: bands of ``ms`` in the network's order, counted from 1; all but alpha by default.
        pan_band: band of ``pan``, needed when it has several.
        full_scale: digital number that both images are divided by; see
            :func:`ssdiff_trt.runtime.raster.radiometry.choose_scale` for the default.
        pan_full_scale: that of ``pan``, if it differs.
        nodata: value that means no data in both, whatever the files say.
        shift: rows and columns of PAN by which what MS shows lies further than its georeferencing
            says; ``auto`` to measure that and make up for it where it is reliable, see
            :class:`ssdiff_trt.runtime.raster.registration.Shift`; or ``none``.
        steps: number of evenly spaced sampling steps; the bundle's timesteps by default.
        timesteps: explicit timesteps, 0..999, in place of ``steps``.
        sampler: ``consistent`` or ``released``; the bundle's by default.
        seed: of the noise, 0 to 2**64 - 1.
        tile_overlap: pixels over which neighbouring tiles fade into each other.
        batch: tiles at a time; what suits the backend by default.
        window: pixels on a side that are read and written at a time, roughly.
        threads: of the CPU; all cores by default.
        backend: a name of :data:`ssdiff_trt.runtime.backends.protocol.BACKENDS`, or an opened
            one.
        precision: of the network; see :func:`ssdiff_trt.runtime.backends.registry.open_backend`.
        dtype: of the output; that of ``ms`` by default.
        driver: ``GTiff`` or ``COG``.
        options: creation options of the driver.
        overwrite: replace an existing output.
        quicklook: also draw a PNG beside the output.
        progress: told how work goes.

    Returns:
        What was done. The pixels depend on the inputs, the bundle, the schedule, the seed, the
        overlap and the backend; not on ``batch``, ``window`` or ``threads``.

    Raises:
        SSDiffError: when the input cannot be used; before long work begins, and without leaving
            an output.
    """
    began = time.monotonic()
    progress = progress or Progress()
    check_seed(seed)
    _check_numbers(batch=batch, window=window, threads=threads)
    with (
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
        Scene(pan, ms, bands=bands, pan_band=pan_band, nodata=nodata) as scene,
    ):
        opened = bundle_for(len(scene.bands), bundle)
        manifest = opened.manifest
        moved, measured = choose_shift(shift, scene)
        if any(moved):
            scene.move(*moved)
        rows, cols = (
            Axis(len(axis), manifest.model.tile, tile_overlap) for axis in (scene.rows, scene.cols)
        )
        engine = backend
        if isinstance(engine, str):
            engine = open_backend(
                engine,
                opened,
                precision=precision,
                threads=threads,
                batch=batch,
                progress=progress,
            )
        result = Result(
            output=Path(f"{Path(ms).stem}_pansharpened.tif" if output is None else output),
            size=(len(scene.output[0]), len(scene.output[1])),
            bands=tuple(scene.bands),
            tile_overlap=tile_overlap,
            schedule=_choose_schedule(opened, steps, timesteps, sampler),
            seed=seed,
            bundle=opened,
            backend=engine.describe(),
            precision=engine.precision,
            pan_scale=choose_scale(
                scene.pan,
                scene.pan_band,
                full_scale if pan_full_scale is None else pan_full_scale,
                opened,
            ),
            ms_scale=choose_scale(scene.ms, scene.bands[0], full_scale, opened),
            position=scene.position,
            shift=moved,
            measured_shift=measured,
            resampled=scene.resampled,
        )
        target = Output(
            result.output,
            scene,
            dtype=dtype,
            driver=driver,
            options=options,
            tags=result.tags(),
            overwrite=overwrite,
        )
        picture = result.output.with_suffix(".png")
        if quicklook:
            require_matplotlib()
            check_target(picture, (scene.pan.name, scene.ms.name), overwrite, "--output")
        tell_assumptions(scene, result, progress)

        def read(area: Window) -> WindowInputs:
            return prepare(scene, area, seed, result.pan_scale.value, result.ms_scale.value)

        def write(inputs: WindowInputs, values: NDArray[np.float32]) -> None:
            values *= np.float32(result.ms_scale.value)
            result.invalid_pixels += _write(target, scene, inputs, values)

        guarded = Guarded(engine, lambda: _in_fp32(backend, opened, threads, progress))
        areas = windows(rows, cols, window)
        with target, progress, closing(_ahead(read, areas)) as work, _behind(write) as write_later:

            def finish(inputs: WindowInputs, values: NDArray[np.float32]) -> None:
                write_later(inputs, values)
                result.add(inputs)
                progress.advance(len(inputs.window.tiles) - len(inputs.places))

            progress.start("Tiles", len(rows.starts) * len(cols.starts))
            assembly = _Assembly(Canvas(len(scene.bands), rows, cols), finish)
            batches = assembly.batches(work, batch or engine.batch)
            for images in guarded.sample(batches, result.schedule):
                assembly.add(images)
                progress.advance(len(images))
        result.redone = guarded.redone
        if quicklook:
            draw_quicklook(scene, result, picture)
            result.quicklook = picture
    result.clipped = target.clipped
    result.seconds = time.monotonic() - began
    tell_result(result, progress)
    return result


def _check_numbers(**positive: int | None) -> None:
    for name, value in positive.items():
        if value is not None and not 1 <= value < 2**31:
            raise SSDiffError(f"--{name} {value} does not work; give a number of 1 or more.")


def _choose_schedule(
    bundle: Bundle, steps: int | None, timesteps: Sequence[int] | None, sampler: Sampler | None
) -> Schedule:
    default = bundle.manifest.sampler
    if steps is not None and timesteps is not None:
        raise SSDiffError("Both --steps and --timesteps were given; give one of them.")
    if steps is not None:
        timesteps = spaced_timesteps(steps)
    chosen = default.timesteps if timesteps is None else timesteps
    return make_schedule(chosen, sampler or default.name)


class _Assembly:
    """Hands batches of tiles to a backend that may be ahead, and puts its images together.

    Args:
        canvas: to put them on.
        finish: takes a window that is complete, and its pixels ``[C, rows, cols]``, 0..1.
    """

    def __init__(
        self, canvas: Canvas, finish: Callable[[WindowInputs, NDArray[np.float32]], None]
    ) -> None:
        self._canvas, self._finish = canvas, finish
        self._sent: deque[tuple[WindowInputs, list[tuple[int, int]] | None]] = deque()
        self._open: WindowInputs | None = None

    def batches(self, work: Iterable[WindowInputs], size: int) -> Iterator[Tiles]:
        """What is to be sampled, window after window."""
        for inputs in work:
            light = inputs.without_tiles()
            for places, tiles in inputs.batches(size):
                self._sent.append((light, places))
                yield tiles
            self._sent.append((light, None))  # the window ends
            self._close()

    def add(self, images: NDArray[np.float32]) -> None:
        """The images of the batch that was sent longest ago."""
        inputs, places = self._sent.popleft()
        assert places is not None
        self._begin(inputs)
        for (i, j), image in zip(places, images, strict=True):
            self._canvas.add(inputs.window, i, j, image)
        self._close()

    def _begin(self, inputs: WindowInputs) -> None:
        if self._open is not inputs:
            self._open = inputs
            self._canvas.open(inputs.window)

    def _close(self) -> None:
        """Finish windows all of whose images are there."""
        while self._sent and self._sent[0][1] is None:
            inputs, _ = self._sent.popleft()
            self._begin(inputs)
            self._finish(inputs, self._canvas.close(inputs.window))


def _in_fp32(
    backend: str | Backend, bundle: Bundle, threads: int | None, progress: Progress
) -> Backend:
    """What computes again what low precision could not: the CPU, if ONNX Runtime is there."""
    name = "onnxruntime" if find_spec("onnxruntime") or not isinstance(backend, str) else backend
    return open_backend(name, bundle, precision="fp32", threads=threads, progress=progress)


def _ahead(
    read: Callable[[Window], WindowInputs], areas: Iterator[Window]
) -> Generator[WindowInputs, None, None]:
    """Read each window while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for area in areas:
            following = pool.submit(read, area)
            if pending:
                yield pending.result()
            pending = following
        if pending:
            yield pending.result()


@contextmanager
def _behind(
    write: Callable[[WindowInputs, NDArray[np.float32]], None],
) -> Iterator[Callable[[WindowInputs, NDArray[np.float32]], None]]:
    """Write each window while the one after it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[None]] = []

        def wait() -> None:
            while pending:
                pending.pop().result()

        def later(inputs: WindowInputs, values: NDArray[np.float32]) -> None:
            wait()
            pending.append(pool.submit(write, inputs, values))

        yield later
        wait()


def _write(target: Output, scene: Scene, inputs: WindowInputs, values: NDArray[np.float32]) -> int:
    """Write a finished window without what lies beyond PAN; how many of its pixels are invalid."""
    grids = zip(inputs.window.write, (scene.rows, scene.cols), scene.output, strict=True)
    placed, parts = [], []
    for span, grid, inside in grids:
        start = max(grid.start + span.start, inside.start)
        stop = min(grid.start + span.stop, inside.stop)
        placed.append(range(start, stop))
        parts.append(slice(start - grid.start - span.start, stop - grid.start - span.start))
    valid = inputs.valid[parts[0], parts[1]]
    target.write(placed[0], placed[1], values[:, parts[0], parts[1]], valid)
    return int(valid.size - valid.sum())
