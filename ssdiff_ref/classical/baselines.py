"""Classical pansharpening methods as implemented by the DLPan-Toolbox, the baselines of SSDiff.

After Vivone et al., 2015 and 2021. Each takes a :class:`Pair` and returns the fused image
``[C, H, W]``; a pair says whether the toolbox is followed to the letter, as evaluations need it, or
edges, the place of MS and flat or dark imagery are treated as a user expects it. Variances and
covariances occur only in ratios, so normalising by N instead of the toolbox's N - 1 makes no
difference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from scipy.ndimage import convolve1d
from scipy.optimize import nnls

from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.checks import Image
from ssdiff_ref.quality.filters import (
    bicubic_quarter,
    decimate,
    gaussian_kernel,
    lowpass,
    mtf_filter,
    mtf_filter_pan,
)
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION, interpolate

_EPS = float(np.finfo(np.float64).eps)
_ROUNDING = 1e-6
"""Deviation of float32 values, as a share of them, that means nothing."""
_LARGEST_LOSS = 1.5
"""Largest deviation of PAN over that of PAN at the resolution of MS: noise loses more."""
_LARGEST_GAIN = 3.0
"""Largest gain of detail over that of a band which PAN explains entirely."""


def _mean(image: Image) -> Image:
    """Mean of each band, ``[..., 1, 1]``."""
    mean: Image = image.mean(axis=(-2, -1), keepdims=True)
    return mean


def _cov(x: Image, y: Image) -> Image:
    """Covariance between corresponding bands of two images, ``[..., 1, 1]``."""
    return _mean((x - _mean(x)) * (y - _mean(y)))


def _std(image: Image) -> Image:
    deviation: Image = np.sqrt(_cov(image, image))
    return deviation


def _weights(bands: Image, target: Image) -> Image:
    """Least-squares weights ``[C, 1, 1]`` whose weighted sum of ``[C, H, W]`` fits ``target``."""
    columns = bands.reshape(len(bands), -1).T
    weights = np.linalg.lstsq(columns, target.ravel(), rcond=None)[0]
    return weights.astype(np.float64).reshape(-1, 1, 1)


def _negligible(image: Image) -> Image:
    """Deviation ``[..., 1, 1]`` that may be rounding errors of an image's values."""
    return _ROUNDING * _mean(np.abs(image))


def _quotient(x: Image, y: Image, least: Image) -> Image:
    """``x / y``; 0 where ``y`` is not above ``least``."""
    known = y > least
    quotient: Image = np.where(known, x / np.where(known, y, 1), 0)
    return quotient


def _contrast(image: Image, pair: Pair) -> Image:
    """Standard deviation of an image in units of that of PAN at the resolution of MS; 0 if PAN is
    flat."""
    blurred = lowpass(pair.pan)
    deviation = _std(blurred)
    if not pair.toolbox:  # where PAN is noise, little is left of it
        deviation = np.maximum(deviation, _std(pair.pan) / _LARGEST_LOSS)
    return _quotient(_std(image), deviation, _negligible(blurred))


def _sampled(image: Image, position: tuple[float, float]) -> Image:
    """An image on the grid of PAN at the pixels of MS; it has to be blurred already."""
    offset = [place - PROTOCOL_POSITION for place in position]
    if any(offset):
        shift = [0.0] * (image.ndim - 2) + [-pixels for pixels in offset]
        image = ndimage.shift(image, shift, order=3, mode="nearest")
    return decimate(image)


def _blurred(image: Image, pair: Pair) -> Image:
    """``[C, H, W]`` blurred by the MTF of each band, with the same mean but in the toolbox."""
    blurred = mtf_filter(image, pair.sensor)
    if pair.toolbox:
        return blurred
    sums = [gaussian_kernel(gain).sum() for gain in pair.sensor.mtf_ms]
    return blurred / np.reshape(sums, (-1, 1, 1))


def _ms_resolution(image: Image, pair: Pair) -> Image:
    """PAN ``[C, H, W]``, one copy per band, reduced to the resolution of MS and interpolated."""
    border = "wrap" if pair.toolbox else "symmetric"
    return interpolate(_sampled(_blurred(image, pair), pair.position), border, pair.position)


def _injected(pair: Pair, modulated: Image, divisor: Image, detail: Image) -> Image:
    """``lms`` plus detail, scaled by what is modulated over its estimate from PAN.

    This is the toolbox's ``modulated * (divisor + detail) / divisor``, but bounded.
    """
    gain = _quotient(modulated, divisor, _negligible(pair.lms))
    return pair.lms + gain.clip(0, _LARGEST_GAIN) * detail


def _per_band(pair: Pair) -> Image:
    return np.broadcast_to(pair.pan, pair.lms.shape)


def exp(pair: Pair) -> Image:
    """The interpolated MS bands, without PAN."""
    return pair.lms


def _modulate(pair: Pair, weights: Image, haze: Image) -> Image:
    """Multiply each band, after subtracting haze, by equalised PAN over intensity."""
    haze_free = pair.lms - haze
    intensity = (weights * haze_free).sum(axis=0)
    contrast = _contrast(intensity, pair)
    level = _mean(lowpass(pair.pan) if pair.toolbox else pair.pan)
    equalised = (pair.pan - level) * contrast + _mean(intensity)
    if not pair.toolbox:
        return _injected(pair, np.maximum(haze_free, 0), intensity, equalised - intensity)
    fused: Image = np.maximum(haze_free, 0) * (equalised / (intensity + _EPS)) + haze
    return fused


def brovey(pair: Pair) -> Image:
    """Brovey transform (Gillespie et al., 1987): :func:`bt_h` with equal weights and no haze."""
    bands = len(pair.ms)
    return _modulate(pair, np.full((bands, 1, 1), 1 / bands), np.zeros((bands, 1, 1)))


def bt_h(pair: Pair) -> Image:
    """Brovey transform with haze correction (Lolli et al., 2017; ``BroveyRegHazeMin.m``).

    Haze is the minimum of a band; with 4 bands, a fraction of its first percentile, smaller at
    longer wavelengths, where the atmosphere scatters less.
    """
    if len(pair.ms) == 4:
        fraction = np.array([0.95, 0.45, 0.40, 0.05])[:, None, None]
        dark = np.percentile(pair.lms, 1, axis=(-2, -1), keepdims=True, method="hazen")
        haze = fraction * dark
    else:
        haze = pair.lms.min(axis=(-2, -1), keepdims=True)
    return _modulate(pair, _weights(pair.lms, lowpass(pair.pan)), haze)


def _substitute(pair: Pair, intensity: Image, pan: Image) -> Image:
    """Component substitution: add PAN minus intensity, both of mean 0, with a gain per band.

    The gain is the regression coefficient of the band on the intensity.
    """
    gain = _cov(intensity, pair.lms) / _cov(intensity, intensity)
    if not pair.toolbox:
        # An intensity that hardly resembles PAN varies too little, and the gain is beyond measure.
        most = _LARGEST_GAIN * _contrast(pair.lms, pair)
        gain = np.clip(gain, -most, most)
    return pair.lms + gain * (pan - intensity)


def gs(pair: Pair) -> Image:
    """Gram-Schmidt (Laben & Brower, 2000; ``GS.m``)."""
    intensity = (pair.lms - _mean(pair.lms)).mean(axis=0)
    pan = (pair.pan - _mean(pair.pan)) * _std(intensity) / _std(pair.pan)
    return _substitute(pair, intensity, pan)


def wavelet_quarter(
    pan: Image, position: tuple[float, float] = (PROTOCOL_POSITION, PROTOCOL_POSITION)
) -> Image:
    """PAN ``[H, W]`` low-passed by the "a trous" wavelet and decimated (``LPfilterPlusDec.m``).

    Two levels of analysis, mirrored at the edges, then two of synthesis. All use the same five
    taps: the toolbox does not dilate them from level to level.
    """
    taps = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    for margin in (4, 4, 0, 0):
        pan = np.pad(pan, margin, mode="symmetric")
        pan = convolve1d(convolve1d(pan, taps, axis=0), taps, axis=1)[2:-2, 2:-2]
    return _sampled(pan, position)


def gsa(pair: Pair) -> Image:
    """Adaptive Gram-Schmidt (Aiazzi et al., 2007; ``GSA.m``): the intensity is fitted to PAN."""
    pan = pair.pan - _mean(pair.pan)
    # The toolbox also fits an intercept; it is 0 because all means are subtracted.
    weights = _weights(pair.ms - _mean(pair.ms), wavelet_quarter(pan, pair.position))
    return _substitute(pair, (weights * (pair.lms - _mean(pair.lms))).sum(axis=0), pan)


def _equalised(pair: Pair) -> Image:
    """PAN ``[C, H, W]``, one copy per band, with the band's mean and standard deviation."""
    contrast = _contrast(pair.lms, pair)
    return (pair.pan - _mean(pair.pan)) * contrast + _mean(pair.lms)


def mtf_glp(pair: Pair) -> Image:
    """Generalised Laplacian pyramid with MTF-matched filters (Aiazzi et al., 2006)."""
    pan = _equalised(pair)
    return pair.lms + pan - _ms_resolution(pan, pair)


def mtf_glp_fs(pair: Pair) -> Image:
    """MTF-GLP with injection gains from a regression at full scale (Vivone et al., 2018)."""
    coarse = _ms_resolution(_per_band(pair), pair)
    gain = _quotient(_cov(pair.lms, pair.pan), _cov(coarse, pair.pan), _negligible(pair.pan) ** 2)
    return pair.lms + gain * (pair.pan - coarse)


def mtf_glp_hpm(pair: Pair) -> Image:
    """MTF-GLP with high-pass modulation (Aiazzi et al., 2003; Vivone et al., 2014)."""
    pan = _equalised(pair)
    coarse = _ms_resolution(pan, pair)
    if not pair.toolbox:
        return _injected(pair, pair.lms, coarse, pan - coarse)
    return pair.lms * (pan / (coarse + _EPS))


def mtf_glp_hpm_r(pair: Pair) -> Image:
    """MTF-GLP-HPM with PAN equalised by a regression (Vivone et al., 2018)."""
    coarse = _ms_resolution(_per_band(pair), pair)
    gain = _quotient(_cov(pair.lms, coarse), _cov(coarse, coarse), _negligible(coarse) ** 2)
    if not pair.toolbox:
        estimate = _mean(pair.lms) + gain * (coarse - _mean(pair.pan))
        return _injected(pair, pair.lms, estimate, gain * (pair.pan - coarse))
    offset = _mean(pair.lms) / gain - _mean(pair.pan)
    return pair.lms * ((pair.pan + offset) / (coarse + offset))


def bdsd_pc(pair: Pair) -> Image:
    """Band-dependent spatial detail with physical constraints (Vivone, 2019; ``BDSD_PC.m``).

    The detail of a band is a linear combination of PAN, with a weight >= 0, and the bands, with
    weights <= 0, fitted at a quarter of the resolution.
    """
    # The toolbox shrinks MS half a pixel off the place where it samples PAN.
    truth = bicubic_quarter(pair.lms) if pair.toolbox else bicubic_quarter(pair.lms, pair.position)
    coarse = _blurred(truth, pair)
    pan = _sampled(mtf_filter_pan(pair.pan, pair.sensor), pair.position)
    if not pair.toolbox:
        pan = pan / gaussian_kernel(pair.sensor.mtf_pan).sum()
    columns = np.stack([pan, *-coarse]).reshape(len(truth) + 1, -1).T
    detail = np.stack([pair.pan, *-pair.lms])
    fits = [nnls(columns, band.ravel())[0] for band in truth - coarse]
    return pair.lms + np.tensordot(np.stack(fits), detail, axes=1)


METHODS: dict[str, Callable[[Pair], Image]] = {
    "EXP": exp,
    "Brovey": brovey,
    "BT-H": bt_h,
    "GS": gs,
    "GSA": gsa,
    "MTF-GLP": mtf_glp,
    "MTF-GLP-FS": mtf_glp_fs,
    "MTF-GLP-HPM": mtf_glp_hpm,
    "MTF-GLP-HPM-R": mtf_glp_hpm_r,
    "BDSD-PC": bdsd_pc,
}
"""Methods by their names in the literature."""
COMPARED = tuple(name for name in METHODS if name != "Brovey")
"""Methods evaluated by default: all but Brovey, which BT-H improves on."""


def find_method(name: str) -> str:
    """The key of :data:`METHODS` that equals ``name``, ignoring case.

    Raises:
        SSDiffError: if there is none.
    """
    for method in METHODS:
        if method.lower() == name.lower():
            return method
    raise InputError(
        f"The method {name!r} is unknown, expected one of {', '.join(METHODS)}; choose one of them."
    )
