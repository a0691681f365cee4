"""The classical methods that a network has to beat, as the DLPan-Toolbox has them.

After Vivone et al., 2015 and 2021. Each takes a :class:`Pair` and gives the fused image
``[C, H, W]``. Variances and covariances meet only in ratios, so their N - 1 cancels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import convolve1d
from scipy.optimize import nnls

from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.checks import (
    Image,
)
from ssdiff_ref.quality.filters import (
    bicubic_quarter,
    decimate,
    lowpass,
    mtf_filter,
    mtf_filter_pan,
)
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.sensors import Sensor

_EPS = float(np.finfo(np.float64).eps)


def _mean(image: Image) -> Image:
    """Of each band, ``[..., 1, 1]``."""
    mean: Image = image.mean(axis=(-2, -1), keepdims=True)
    return mean


def _cov(x: Image, y: Image) -> Image:
    """Covariance of each band of one image with that of another, ``[..., 1, 1]``."""
    return _mean((x - _mean(x)) * (y - _mean(y)))


def _std(image: Image) -> Image:
    deviation: Image = np.sqrt(_cov(image, image))
    return deviation


def _weights(bands: Image, target: Image) -> Image:
    """Least squares weights ``[C, 1, 1]`` with which bands ``[C, H, W]`` sum to the target."""
    columns = bands.reshape(len(bands), -1).T
    weights = np.linalg.lstsq(columns, target.ravel(), rcond=None)[0]
    return weights.astype(np.float64).reshape(-1, 1, 1)


def _as_ms_sees(image: Image, sensor: Sensor) -> Image:
    """PAN ``[C, H, W]``, once per band, less the detail that MS does not resolve."""
    return interpolate(decimate(mtf_filter(image, sensor)), "wrap")


def _per_band(pair: Pair) -> Image:
    return np.broadcast_to(pair.pan, pair.lms.shape)


def exp(pair: Pair) -> Image:
    """No PAN at all: the interpolated bands."""
    return pair.lms


def _modulate(pair: Pair, weights: Image, haze: Image) -> Image:
    """Scale each band by PAN over intensity, after taking the haze out of the light."""
    clear = pair.lms - haze
    intensity = (weights * clear).sum(axis=0)
    blurred = lowpass(pair.pan)
    equal = (pair.pan - _mean(blurred)) * _std(intensity) / _std(blurred) + _mean(intensity)
    fused: Image = np.maximum(clear, 0) * (equal / (intensity + _EPS)) + haze
    return fused


def brovey(pair: Pair) -> Image:
    """Brovey transform (Gillespie et al., 1987): :func:`bt_h` with equal weights and no haze."""
    bands = len(pair.ms)
    return _modulate(pair, np.full((bands, 1, 1), 1 / bands), np.zeros((bands, 1, 1)))


def bt_h(pair: Pair) -> Image:
    """Brovey transform with haze correction (Lolli et al., 2017; ``BroveyRegHazeMin.m``).

    Haze is the darkest value of a band; with 4 bands, a share of its first percentile, smaller
    where the air scatters less.
    """
    if len(pair.ms) == 4:
        share = np.array([0.95, 0.45, 0.40, 0.05])[:, None, None]
        dark = np.percentile(pair.lms, 1, axis=(-2, -1), keepdims=True, method="hazen")
        haze = share * dark
    else:
        haze = pair.lms.min(axis=(-2, -1), keepdims=True)
    return _modulate(pair, _weights(pair.lms, lowpass(pair.pan)), haze)


def _substitute(pair: Pair, intensity: Image, pan: Image) -> Image:
    """Put PAN in the place of the intensity, both of mean 0, as far as a band follows it."""
    gain = _cov(intensity, pair.lms) / _cov(intensity, intensity)
    return pair.lms + gain * (pan - intensity)


def gs(pair: Pair) -> Image:
    """Gram-Schmidt (Laben & Brower, 2000; ``GS.m``)."""
    intensity = (pair.lms - _mean(pair.lms)).mean(axis=0)
    pan = (pair.pan - _mean(pair.pan)) * _std(intensity) / _std(pair.pan)
    return _substitute(pair, intensity, pan)


def wavelet_quarter(pan: Image) -> Image:
    """PAN ``[H, W]`` low-passed by the "a trous" wavelet and decimated (``LPfilterPlusDec.m``).

    Two levels of analysis, mirrored at the edges, then two of synthesis. All have the same five
    taps: the toolbox does not spread them from level to level.
    """
    taps = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    for margin in (4, 4, 0, 0):
        pan = np.pad(pan, margin, mode="symmetric")
        pan = convolve1d(convolve1d(pan, taps, axis=0), taps, axis=1)[2:-2, 2:-2]
    return decimate(pan)


def gsa(pair: Pair) -> Image:
    """Adaptive Gram-Schmidt (Aiazzi et al., 2007; ``GSA.m``): the intensity is fitted to PAN."""
    pan = pair.pan - _mean(pair.pan)
    # The toolbox also fits an intercept; bands without their means leave it nothing to change.
    weights = _weights(pair.ms - _mean(pair.ms), wavelet_quarter(pan))
    return _substitute(pair, (weights * (pair.lms - _mean(pair.lms))).sum(axis=0), pan)


def _equalised(pair: Pair) -> Image:
    """PAN once per band, with the band's mean and contrast."""
    contrast = _std(pair.lms) / _std(lowpass(pair.pan))
    return (pair.pan - _mean(pair.pan)) * contrast + _mean(pair.lms)


def mtf_glp(pair: Pair) -> Image:
    """Generalised Laplacian pyramid with MTF-matched filters (Aiazzi et al., 2006)."""
    pan = _equalised(pair)
    return pair.lms + pan - _as_ms_sees(pan, pair.sensor)


def mtf_glp_fs(pair: Pair) -> Image:
    """MTF-GLP with gains from a regression at full scale (Vivone et al., 2018)."""
    coarse = _as_ms_sees(_per_band(pair), pair.sensor)
    gain = _cov(pair.lms, pair.pan) / _cov(coarse, pair.pan)
    return pair.lms + gain * (pair.pan - coarse)


def mtf_glp_hpm(pair: Pair) -> Image:
    """MTF-GLP with high-pass modulation (Aiazzi et al., 2003; Vivone et al., 2014)."""
    pan = _equalised(pair)
    return pair.lms * (pan / (_as_ms_sees(pan, pair.sensor) + _EPS))


def mtf_glp_hpm_r(pair: Pair) -> Image:
    """MTF-GLP-HPM, equalised by a regression (Vivone et al., 2018)."""
    coarse = _as_ms_sees(_per_band(pair), pair.sensor)
    gain = _cov(pair.lms, coarse) / _cov(coarse, coarse)
    offset = _mean(pair.lms) / gain - _mean(pair.pan)
    return pair.lms * ((pair.pan + offset) / (coarse + offset))


def bdsd_pc(pair: Pair) -> Image:
    """Band-dependent spatial detail with physical constraints (Vivone, 2019; ``BDSD_PC.m``).

    Detail is a combination of PAN, with a weight of at least 0, and the bands, with weights of at
    most 0, fitted at a quarter of the resolution.
    """
    truth = bicubic_quarter(pair.lms)
    coarse = mtf_filter(truth, pair.sensor)
    pan = decimate(mtf_filter_pan(pair.pan, pair.sensor))
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
"""By the names of the literature."""
COMPARED = tuple(name for name in METHODS if name != "Brovey")
"""Those that a network is compared with unless told otherwise: BT-H is Brovey, improved."""


def find_method(name: str) -> str:
    """The name in :data:`METHODS` that this is, upper or lower case aside."""
    for known in METHODS:
        if known.lower() == name.lower():
            return known
    raise SSDiffError(
        f"The method {name!r} is unknown, expected one of {', '.join(METHODS)}; choose one of them."
    )
