"""Weights on held-out blocks of scenes, measured at both resolutions as a run would fuse them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssdiff_ref.network.backend import TorchBackend
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.checks import Image, Mask
from ssdiff_ref.quality.full_resolution import d_rho, detail_correlation
from ssdiff_ref.quality.metrics import ergas, q2n, sam
from ssdiff_ref.quality.quality_index import BLOCK as Q2N_BLOCK
from ssdiff_ref.training.scene_pairs import AdaptationScene, Block
from ssdiff_ref.training.validation import Scores
from ssdiff_trt.runtime.arrays import ArrayOutput, ArrayPair
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.consistency import REACH, seen, seen_pixels
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.options import PairOptions, SamplingOptions
from ssdiff_trt.runtime.pansharpener import Pansharpener
from ssdiff_trt.runtime.plan.plan import OpenPair, make_plan
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.sources import MSAxis

Values = NDArray[np.float64]
_MARGIN = 24
"""Pixels of the result around a block that are fused too; more than :data:`REACH`."""
_BATCH = 16
_Q2N_SCALE = 2047
"""Q2n rounds to whole numbers."""


class Measure(NamedTuple):
    """One column of a verdict."""

    name: str
    higher: bool
    """Whether higher values are better."""
    tolerance: float = 0
    """Change for the worse, as a share of the value before, that counts as none in a verdict."""
    reserve: float = 0
    """Change for the better, as a share of the value before, that early stopping asks for."""


REDUCED = Measure("ERGAS", False), Measure("SAM", False), Measure("Q2n", True)
"""At reduced resolution, with MS as the truth."""
FULL = (
    Measure("R-ERGAS", False, 0.002, 0.01),
    Measure("D_rho", False, 0.005, 0.05),
    Measure("detail", True, 0.0005, 0.001),
)
"""At full resolution. Tolerances are about what another seed of the noise changes, reserves about
what the blocks of a verdict differ by from those for early stopping."""
MEASURES = REDUCED + FULL


@dataclass(frozen=True)
class SceneScores(Scores):
    """Means over held-out blocks at both resolutions."""

    r_ergas: float
    """Lower is better."""
    d_rho: float
    """0..2; lower is better."""
    detail: float
    """-1..1; higher is better."""
    grade: int
    """2 if every measure at full resolution is better than before training by its reserve, 1 if
    none is worse or this is before training, otherwise 0."""

    def better_than(self, other: Scores | None) -> bool:
        """Whether the grade is higher than that of ``other``, or the same and ERGAS is lower.

        With grade 0 the weights are better than none others.
        """
        if not (self.grade and isinstance(other, SceneScores)):
            return self.grade > 0
        return (-self.grade, self.ergas) < (-other.grade, other.ergas)

    def __str__(self) -> str:
        full = f"R-ERGAS {self.r_ergas:.3f}, D_rho {self.d_rho:.4f}, detail {self.detail:.4f}"
        remark = (", not good enough", ", without reserve", "")[self.grade]
        return f"{super().__str__()}; {full}{remark}"


@dataclass(frozen=True)
class Verdict:
    """Measures of held-out blocks before and after training."""

    before: Values
    """``[n, 6]``: each block, in the columns of :data:`MEASURES`."""
    after: Values

    @property
    def gains(self) -> Values:
        """``[6]``, changes of the means for the better."""
        signs = np.array([1 if measure.higher else -1 for measure in MEASURES])
        return signs * means(self.after - self.before)

    @property
    def errors(self) -> Values:
        """``[6]``, standard errors of the gains, from their spread over the blocks; NaN for one."""
        count = len(self.before)
        if count < 2:
            return np.full(len(MEASURES), np.nan)
        errors: Values = np.nanstd(self.after - self.before, axis=0, ddof=1) / np.sqrt(count)
        return errors

    @property
    def worse(self) -> tuple[str, ...]:
        """Measures that rule the weights out.

        At reduced resolution those that are not better, at full resolution those that are worse by
        more than their tolerance.
        """
        rows = zip(REDUCED, self.gains, strict=False)
        not_better = tuple(measure.name for measure, gain in rows if not gain > 0)
        return not_better + self.lacking([-measure.tolerance for measure in FULL])

    def lacking(self, required: Sequence[float]) -> tuple[str, ...]:
        """Measures at full resolution that are not better by what is required.

        Args:
            required: shares of the values before, in the order of :data:`FULL`.
        """
        full = slice(len(REDUCED), None)
        rows = zip(FULL, self.gains[full], means(self.before)[full], required, strict=True)
        return tuple(
            measure.name for measure, gain, before, share in rows if not gain >= share * abs(before)
        )

    @property
    def certainty(self) -> str:
        """A sentence: on how many blocks the verdict rests, and how sure it is."""
        count, gain, error = len(self.before), self.gains[0], self.errors[0]
        better = int((self.after[:, 0] < self.before[:, 0]).sum())
        blocks = f"{counted(count, 'block')} that training has not seen"
        if count < 2:
            return f"Verdict of {blocks}: too few to say how sure it is"
        sure = f"ERGAS is lower in {better} of them, on average by {gain:.3f} ± {error:.3f}"
        weak = "" if gain > 2 * error else "; that is less than two standard errors, so not certain"
        return f"Verdict of {blocks}: {sure}{weak}"

    def table(self, names: tuple[str, str] = ("before", "after")) -> list[str]:
        """Lines of a table of the means, with a heading; as wide as its contents."""
        rows = [("", *(measure.name for measure in MEASURES))]
        for name, values in zip(names, (self.before, self.after), strict=True):
            rows.append((name, *(f"{value:.4f}" for value in means(values))))
        rows.append(("gain", *(f"{gain:+.4f}" for gain in self.gains)))
        errors = ("-" if np.isnan(error) else f"{error:.4f}" for error in self.errors)
        rows.append(("±", *errors))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        head = "reduced resolution".center(sum(widths[1:4]) + 4)
        lines = [f"{'':{widths[0]}}  {head}  full resolution".rstrip()]
        for first, *rest in rows:
            cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
            lines.append(f"{first:<{widths[0]}}  {'  '.join(cells)}".rstrip())
        return lines


def means(values: Values) -> Values:
    """``[6]``, over blocks; those that lack a measure, as SAM of a black block, do not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all lack it, the mean is NaN
        result: Values = np.nanmean(values, axis=0)
    return result


class HeldOut:
    """Held-out blocks to measure weights on.

    Blocks are fused by the code of a run, with the tiles, the blending and the back-projection of
    the bundle, each with a margin.

    Args:
        scenes: scenes that have the blocks.
        blocks: one or more.
        sensor: sensor that acquired MS and PAN.
        bundle: bundle whose settings apply.
    """

    def __init__(
        self,
        scenes: Sequence[AdaptationScene],
        blocks: Sequence[Block],
        sensor: Sensor,
        bundle: Bundle,
    ) -> None:
        self._scenes, self.blocks, self._sensor, self._bundle = scenes, blocks, sensor, bundle

    def measure(
        self,
        net: SSNet,
        sampling: SamplingOptions | None = None,
        progress: Progress | None = None,
    ) -> Values:
        """``[n, 6]``: :data:`MEASURES` of each block.

        Args:
            net: network to measure.
            sampling: how it samples; default: as the bundle does.
            progress: receives progress updates.
        """
        rows = []
        with progress or Progress() as shown, np.errstate(invalid="ignore", divide="ignore"):
            shown.start("Held-out blocks", len(self.blocks))
            for block, fuse in self._fusions(net, sampling):
                rows.append([*self._reduced(fuse, block), *self._full(fuse, block)])
                shown.advance(1)
        return np.array(rows)

    def images(self, net: SSNet, number: int) -> tuple[Image, Image]:
        """The image ``[C, H, W]`` of a block at full resolution, and PAN ``[H, W]``; 0..1."""
        block, fuse = list(self._fusions(net, None))[number]
        image, inner, pan = fuse(fuse.scene.pan, fuse.scene.ms, block, RATIO, None)
        return image[inner], pan[inner[1:]]

    def _fusions(
        self, net: SSNet, sampling: SamplingOptions | None
    ) -> Iterator[tuple[Block, _Fusion]]:
        backend = TorchBackend(
            self._bundle, fmim="matmul", attention="fused", batch=_BATCH, weights=net
        )
        with Pansharpener(self._bundle, backend=backend) as sharpener:
            for block in self.blocks:
                scene = self._scenes[block.scene]
                yield block, _Fusion(scene, self._bundle, sharpener, sampling)

    def _reduced(self, fuse: _Fusion, block: Block) -> tuple[float, float, float]:
        scene = fuse.scene
        image, inner, _ = fuse(scene.reduced_pan, scene.reduced_ms, block, 1, PROTOCOL_POSITION)
        fused, truth = image[inner], scene.ms[(..., *block.place)].astype(np.float64)
        # Q2n is of blocks of 32 x 32 pixels; smaller ones are mirrored, as at an edge of an image.
        mirrored = [(0, 0), *[(0, max(Q2N_BLOCK - block.size, 0))] * 2]
        scaled = (np.pad(_Q2N_SCALE * each, mirrored, "symmetric") for each in (fused, truth))
        return ergas(fused, truth), sam(fused, truth), q2n(*scaled)

    def _full(self, fuse: _Fusion, block: Block) -> tuple[float, float, float]:
        scene = fuse.scene
        image, inner, pan = fuse(scene.pan, scene.ms, block, RATIO, None)
        return (
            self._r_ergas(image, scene, block, inner),
            d_rho(image, pan, _grown(inner, RATIO // 2, pan.shape)),
            detail_correlation(image, pan, self._sensor, _grown(inner, REACH, pan.shape)),
        )

    def _r_ergas(
        self, image: Image, scene: AdaptationScene, block: Block, inner: tuple[slice, ...]
    ) -> float:
        """ERGAS of what the sensor of MS would see of the image, where it sees no edge."""
        axes, kept, true = [], [], []
        for size, place, where, offset in zip(
            image.shape[1:], block.place, inner[1:], scene.position, strict=True
        ):
            axis, before = MSAxis(offset - GROUND_POSITION), where.start // RATIO
            whole = seen_pixels(axis, size)
            first = max(before, whole.start)
            last = min(before + block.size, whole.stop)
            axes.append(axis)
            kept.append(slice(first - whole.start, last - whole.start))
            true.append(slice(place.start + first - before, place.start + last - before))
        down, across = axes
        gains = self._sensor.mtf_ms
        back = [seen(band, (down, across), gain) for band, gain in zip(image, gains, strict=True)]
        return ergas(np.stack(back)[:, kept[0], kept[1]], scene.ms[:, true[0], true[1]])


@dataclass(frozen=True)
class _Fusion:
    """Fuses blocks of a scene as a run does."""

    scene: AdaptationScene
    bundle: Bundle
    sharpener: Pansharpener
    sampling: SamplingOptions | None

    def __call__(
        self,
        pan: NDArray[np.float32],
        ms: NDArray[np.float32],
        block: Block,
        scale: int,
        position: float | None,
    ) -> tuple[Image, tuple[slice, ...], Image]:
        """The image of a block with its margin, where the block is in it, and PAN there.

        Args:
            pan: ``[H, W]``, of the scene.
            ms: ``[C, H / 4, W / 4]``, likewise.
            block: block to fuse.
            scale: pixels of PAN on a side of those that the block is stated in.
            position: row and column of ``pan`` at the centre of the first pixel of ``ms``; those
                of the scene if None.
        """
        window, inner = [], []
        for place, size in zip(block.place, pan.shape, strict=True):
            start, stop = scale * place.start, scale * place.stop
            first, last = max(start - _MARGIN, 0), min(stop + _MARGIN, size)
            window.append(slice(first, last))
            inner.append(slice(start - first, stop - first))
        coarse = [slice(part.start // RATIO, part.stop // RATIO) for part in window]
        fine = pan[tuple(window)]
        source = ArrayPair(
            fine.clip(0, 1),
            ms[:, coarse[0], coarse[1]].clip(0, 1),
            position=self.scene.position if position is None else (position, position),
        )
        sink = ArrayOutput(source)
        options = PairOptions(full_scale=1, shift="none"), self.sampling or SamplingOptions()
        self.sharpener.run(make_plan(OpenPair(source, sink), self.bundle, *options), Progress())
        image: Image = np.ma.getdata(sink.image).astype(np.float64)
        return image, (slice(None), *inner), fine.astype(np.float64)


def _grown(inner: tuple[slice, ...], reach: int, shape: tuple[int, ...]) -> Mask:
    """``[H, W]``, true within so many pixels of a block."""
    mask = np.zeros(shape, bool)
    rows, cols = (slice(max(part.start - reach, 0), part.stop + reach) for part in inner[1:])
    mask[rows, cols] = True
    return mask


class Stopping:
    """Means over held-out blocks, for early stopping; the first call sets what is compared with.

    Args:
        held_out: blocks to measure weights on.
        adjust: receives the measures at full resolution in which weights are not good enough.
    """

    def __init__(self, held_out: HeldOut, adjust: Callable[[Collection[str]], None]) -> None:
        self._held_out, self._adjust = held_out, adjust
        self._before: Values | None = None

    def __call__(self, net: SSNet) -> SceneScores:
        """Measure weights."""
        # Without overlap there are half as many tiles, and the comparison is as fair.
        values = self._held_out.measure(net, SamplingOptions(tile_overlap=0))
        grade = 1
        if self._before is None:
            self._before = values
        else:
            verdict = Verdict(self._before, values)
            lacking = verdict.lacking([measure.reserve for measure in FULL])
            self._adjust(lacking)
            worse = verdict.lacking([0] * len(FULL))
            grade = 0 if worse else 1 if lacking else 2
        return SceneScores(*map(float, means(values)), grade=grade)  # type: ignore[misc, arg-type]
