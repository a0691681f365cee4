"""Measures at full resolution beyond the toolbox's QNR and HQNR.

HQNR alone is won by softness: its D_s grows with the detail that an image takes from PAN. These
measures therefore come in pairs. Fidelity to MS is judged by putting the fused image back to the
resolution of MS (R-Q2n, R-SAM, R-ERGAS; Scarpa & Ciotola, 2022), fidelity to PAN by correlation
(D_rho, likewise), regression (RQNR; Alparone et al., 2018) and by how the detail looks: its
correlation with PAN's, the power at a period of 4 pixels, where grids of MS show, and overshoot at
edges. The former do not see missing detail, the latter do not see wrong colours.

Images are ``[C, H, W]``, PAN ``[H, W]``, in digital numbers or any other unit.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ssdiff_ref.quality.checks import (
    Image,
    Mask,
    as_image,
    as_pair,
    blank_nodata,
    check_grids,
    check_same_shape,
    check_sensor,
    inner_mask,
)
from ssdiff_ref.quality.filters import REACH, decimate, mtf_filter
from ssdiff_ref.quality.metrics import ergas, q2n, sam
from ssdiff_ref.quality.quality_index import BLOCK
from ssdiff_trt.runtime.consistency import Consistency
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, RATIO, interpolate
from ssdiff_trt.runtime.interpolator import REACH as INTERPOLATOR_REACH
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.sources import MSAxis

Two = tuple[Image, Image]
Phases = tuple[tuple[int, int], ...]
"""Row and column, 0..3, of PAN at which each band of MS is sampled."""

_PERIOD_BLOCK = 64
"""Pixels on a side of a block of which a spectrum is taken."""
_EDGES = 5
"""Percentage of the pixels, those of the steepest slopes of PAN, that count as edges."""
_AROUND_EDGE = 2 * RATIO + 1
"""Pixels on a side of the square around an edge whose range is that of both its sides."""


def local_correlation(x: Image, y: Image) -> Image:
    """Correlation ``[..., H, W]`` in the window of 4 x 4 pixels around each pixel.

    Zeros are assumed beyond the edges; where either is constant in the window it is 0.
    """
    size = (1,) * (x.ndim - 2) + (RATIO, RATIO)

    def mean(image: Image) -> Image:
        average: Image = ndimage.uniform_filter(image, size, mode="constant")
        return average

    # Means are subtracted first: the differences below lose digits otherwise.
    x, y = x - x.mean(axis=(-2, -1), keepdims=True), y - y.mean(axis=(-2, -1), keepdims=True)
    covariance = mean(x * y) - mean(x) * mean(y)
    variances = (mean(image * image) - mean(image) ** 2 for image in (x, y))
    floors = (1e-10 * float((image**2).mean()) for image in (x, y))
    first, second = (np.where(v > f, v, 0) for v, f in zip(variances, floors, strict=True))
    strength = np.sqrt(first * second)
    r: Image = np.where(strength > 0, covariance / np.where(strength > 0, strength, 1), 0)
    return r.clip(-1, 1)


def d_rho(fused: ArrayLike, pan: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Spatial distortion D_rho (Scarpa & Ciotola, 2022): one minus the local correlation with PAN.

    The mean over pixels and bands of ``1 - r``, r the correlation in windows of 4 x 4 pixels.

    Args:
        fused: ``[C, H, W]``, any unit.
        pan: ``[H, W]``, any unit.
        valid: ``[H, W]`` bool; a pixel counts if its window is valid.

    Returns:
        0..2, 0 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, no pixel that counts.
    """
    image, panchromatic, mask = _against_pan(fused, pan, valid)
    mask = inner_mask(mask, RATIO // 2)
    r = local_correlation(image, np.broadcast_to(panchromatic, image.shape))
    return float(1 - r[:, mask].mean())


def d_s_regression(fused: ArrayLike, pan: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Spatial distortion of RQNR (Alparone et al., 2018): the share of PAN that no sum explains.

    ``1 - R^2`` of the linear regression, with a constant, of PAN on the bands of the fused image.

    Arguments and errors are those of :func:`d_rho`; a PAN without contrast gives 0.

    Returns:
        0..1, 0 is best.
    """
    image, panchromatic, mask = _against_pan(fused, pan, valid)
    target = panchromatic[mask]
    target = target - target.mean()
    columns = image[:, mask].T
    columns = columns - columns.mean(axis=0)
    weights = np.linalg.lstsq(columns, target, rcond=None)[0]
    power = float(target @ target)
    rest = target - columns @ weights
    return float(rest @ rest) / power if power else 0.0


def detail_correlation(
    fused: ArrayLike, pan: ArrayLike, sensor: Sensor, valid: ArrayLike | None = None
) -> float:
    """Correlation of the detail of each band with PAN's, averaged over the bands.

    The detail of an image is what the MTF of the band takes away from it.

    Args:
        fused: ``[C, H, W]``, any unit.
        pan: ``[H, W]``, any unit.
        sensor: sensor that acquired MS and PAN.
        valid: ``[H, W]`` bool; a pixel counts if no nodata was blurred into it.

    Returns:
        -1..1; 1 where all detail is PAN's, low where an image is soft. 0 for a band or PAN
        without detail.

    Raises:
        SSDiffError: on mismatched shapes or bands, non-finite values, no pixel that counts.
    """
    image, panchromatic, mask = _against_pan(fused, pan, valid)
    copies = np.broadcast_to(panchromatic, image.shape)
    blurred = mtf_filter(image, sensor), mtf_filter(copies, sensor)
    return _detail_correlation((image, copies), blurred, mask)


def _detail_correlation(images: Two, blurred: Two, mask: Mask) -> float:
    """Of the fused image and of copies of PAN, as they are and blurred by the MTF."""
    mask = inner_mask(mask, REACH)
    of_bands, of_pan = (image - low for image, low in zip(images, blurred, strict=True))
    correlations = []
    for x, y in zip(of_bands[:, mask], of_pan[:, mask], strict=True):
        x, y = x - x.mean(), y - y.mean()
        strength = float(np.sqrt((x @ x) * (y @ y)))
        correlations.append(float(x @ y) / strength if strength else 0.0)
    return float(np.mean(correlations))


def power_at_period_4(fused: ArrayLike, pan: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Power at a period of 4 pixels, over that of the periods beside it, as a multiple of PAN's.

    Networks and interpolators leave a grid of the size of MS pixels. It shows at the frequencies
    whose periods along both axes are 4 pixels or a fraction of them. Power spectra of blocks of
    64 x 64 pixels under a Hann window are averaged over the blocks; the power at 16 cycles a block
    is divided by the geometric mean of that at 13, 14, 18 and 19, which a smooth spectrum has
    there; and these quotients are averaged over both axes and the frequencies 0, 16 and 32 across.

    Args:
        fused: ``[C, H, W]``, any unit; H and W at least 64.
        pan: ``[H, W]``, any unit.
        valid: ``[H, W]`` bool; a block counts if all its pixels are valid.

    Returns:
        The mean over bands: 1 for a copy of PAN, more where there is a grid, less where an
        interpolator removed that period. NaN if no block counts or an image is flat.

    Raises:
        SSDiffError: on differing shapes or non-finite values.
    """
    image, panchromatic, mask = _against_pan(fused, pan, valid)
    side, cycles = _PERIOD_BLOCK, _PERIOD_BLOCK // RATIO
    window = np.outer(*[np.hanning(side + 1)[:-1]] * 2)
    beside = [cycles - 3, cycles - 2, cycles + 2, cycles + 3]
    across = np.arange(0, side // 2 + 1, cycles)
    height, width = (size - size % side for size in mask.shape)

    def blocks(plane: NDArray[Any]) -> NDArray[Any]:
        parts = plane[:height, :width].reshape(height // side, side, width // side, side)
        return parts.swapaxes(1, 2).reshape(-1, side, side)

    whole = blocks(mask).all(axis=(1, 2))

    def excess(band: Image) -> float:
        chosen = blocks(band)[whole]
        centred = (chosen - chosen.mean(axis=(1, 2), keepdims=True)) * window
        power = (np.abs(np.fft.fft2(centred)) ** 2).sum(axis=0)
        quotients = [
            each[cycles, across] / np.exp(np.log(each[beside][:, across]).mean(axis=0))
            for each in (power, power.T)
        ]
        return float(np.mean(quotients))

    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean([excess(band) for band in image])) / excess(panchromatic)


def overshoot(
    fused: ArrayLike, pan: ArrayLike, sensor: Sensor, valid: ArrayLike | None = None
) -> float:
    """How far bands leave the range of their surroundings at edges, beyond what PAN does.

    At the 5 % of pixels where PAN is steepest: the distance of a value from the range that the
    image at the resolution of MS has in the 9 x 9 pixels around it, divided by that range; the mean
    over these pixels, less the same of PAN. Thin objects leave that range too, but as much in PAN.

    Args:
        fused: ``[C, H, W]``, any unit; H and W multiples of 4.
        pan: ``[H, W]``, any unit.
        sensor: sensor that acquired MS and PAN.
        valid: ``[H, W]`` bool; an edge counts if all that its range depends on is valid.

    Returns:
        The mean over bands: 0 for bands with PAN's detail, negative for soft ones, positive for
        halos along edges. NaN if PAN has no edge that counts.

    Raises:
        SSDiffError: on mismatched shapes or bands, non-finite values, no pixel that counts.
    """
    image, panchromatic, mask = _against_pan(fused, pan, valid)
    copies = np.broadcast_to(panchromatic, image.shape)
    blurred = mtf_filter(image, sensor), mtf_filter(copies, sensor)
    return _overshoot((image, copies), blurred, mask)


def _overshoot(images: Two, blurred: Two, mask: Mask) -> float:
    """Of the fused image and of copies of PAN, as they are and blurred by the MTF."""
    panchromatic = images[1][0]
    mask = inner_mask(mask, _AROUND_EDGE // 2 + RATIO * INTERPOLATOR_REACH + REACH)
    slope = np.hypot(*(ndimage.sobel(panchromatic, axis) for axis in (0, 1)))
    steep = mask & (slope > 0) & (slope >= np.percentile(slope[mask], 100 - _EDGES))

    def beyond(bands: Image, low_pass: Image) -> float:
        """Mean over the bands and edges."""
        coarse = interpolate(decimate(low_pass))
        size = (1, _AROUND_EDGE, _AROUND_EDGE)
        low = ndimage.minimum_filter(coarse, size)[:, steep]
        high = ndimage.maximum_filter(coarse, size)[:, steep]
        values = bands[:, steep]
        outside = np.maximum(values - high, 0) + np.maximum(low - values, 0)
        span = high - low
        return float(np.where(span > 0, outside / np.where(span > 0, span, 1), 0).mean())

    if not steep.any():
        return float("nan")
    of_bands, of_pan = map(beyond, images, blurred)
    return of_bands - of_pan


def sampling_phases(ms: ArrayLike, pan: ArrayLike, sensor: Sensor) -> Phases:
    """Where each band of MS was sampled on PAN's grid (Scarpa & Ciotola, 2022).

    Of 4 x 4 phases, the one at which PAN, blurred with the band's MTF and decimated there, has the
    highest mean local correlation with the band.

    Args:
        ms: ``[C, h, w]``, any unit.
        pan: ``[4 h, 4 w]``, any unit.
        sensor: sensor that acquired them.

    Raises:
        SSDiffError: on mismatched sizes or bands, or non-finite values.
    """
    bands, panchromatic = as_image(ms, "MS"), as_image(pan, "PAN", "[H, W]")
    check_grids(bands, panchromatic)
    blurred = mtf_filter(np.broadcast_to(panchromatic, (len(bands), *panchromatic.shape)), sensor)

    def agreement(place: tuple[int, int, int]) -> float:
        band, row, col = place
        return float(local_correlation(blurred[band, row::RATIO, col::RATIO], bands[band]).mean())

    phases = []
    for band in range(len(bands)):
        every = product([band], range(RATIO), range(RATIO))
        _, row, col = max(every, key=agreement)
        phases.append((row, col))
    return tuple(phases)


def _sampled(blurred: Image, phases: Phases) -> Image:
    pairs = zip(blurred, phases, strict=True)
    return np.stack([band[row::RATIO, col::RATIO] for band, (row, col) in pairs])


def fidelity_scores(
    fused: ArrayLike,
    pan: ArrayLike,
    ms: ArrayLike,
    spectral: float,
    sensor: Sensor,
    phases: Phases | None = None,
    valid: ArrayLike | None = None,
) -> dict[str, float]:
    """All measures of this module.

    Args:
        fused: ``[C, H, W]``, in the unit of MS; H and W multiples of 4.
        pan: ``[H, W]``, any unit.
        ms: ``[C, H / 4, W / 4]``.
        spectral: D_lambda of the image (:func:`ssdiff_ref.quality.metrics.d_lambda`), for RQNR.
        sensor: sensor that acquired MS and PAN.
        phases: of the bands of MS; measured by default.
        valid: ``[H, W]`` bool; true where all images are valid.

    Returns:
        R-Q2n (NaN if MS is smaller than a block of 32 x 32), R-SAM (degrees), R-ERGAS; consistency
        with MS (:class:`ssdiff_trt.runtime.consistency.Consistency`, at the same phases, in the
        unit of MS); D_rho; RQNR, ``(1 - D_lambda) (1 - D_s,R)``; detail correlation; power at a
        period of 4 pixels; overshoot.

    Raises:
        SSDiffError: as the measures do.
    """
    image, panchromatic, mask = _against_pan(fused, pan, valid)
    bands = as_image(ms, "MS")
    check_grids(bands, panchromatic)
    check_sensor(len(image), sensor)
    coarse_mask = decimate(inner_mask(mask, REACH + RATIO // 2))
    bands = blank_nodata(bands, "MS", coarse_mask)
    if phases is None:
        phases = sampling_phases(bands, panchromatic, sensor)
    images = image, np.broadcast_to(panchromatic, image.shape)
    blurred = mtf_filter(images[0], sensor), mtf_filter(images[1], sensor)
    back = _sampled(blurred[0], phases)
    large = min(bands.shape[-2:]) >= BLOCK
    consistency = Consistency()
    for band, true, gain, phase in zip(image, bands, sensor.mtf_ms, phases, strict=True):
        row, col = (MSAxis(where - GROUND_POSITION) for where in phase)
        consistency.add(band[None], mask, true[None], coarse_mask, (row, col), [gain])
    rmse = consistency.rmse
    return {
        "R-Q2n": q2n(back, bands, coarse_mask) if large else float("nan"),
        "R-SAM": sam(back, bands, coarse_mask),
        "R-ERGAS": ergas(back, bands, coarse_mask),
        "consistency": float("nan") if rmse is None else rmse,
        "D_rho": d_rho(image, panchromatic, mask),
        "RQNR": (1 - spectral) * (1 - d_s_regression(image, panchromatic, mask)),
        "detail": _detail_correlation(images, blurred, mask),
        "period 4": power_at_period_4(image, panchromatic, mask),
        "overshoot": _overshoot(images, blurred, mask),
    }


def _against_pan(
    fused: ArrayLike, pan: ArrayLike, valid: ArrayLike | None
) -> tuple[Image, Image, Mask]:
    """Validated fused image, PAN and mask; nodata set to 0."""
    image, _, mask = as_pair(fused, fused, valid, "fused image")
    panchromatic = as_image(pan, "PAN", "[H, W]")
    check_same_shape(image[0], "band of the fused image", panchromatic, "PAN")
    return image, blank_nodata(panchromatic, "PAN", mask), mask
