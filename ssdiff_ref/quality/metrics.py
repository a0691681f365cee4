"""Quality metrics of fused images by the protocol of the DLPan-Toolbox (Deng et al., 2022).

At reduced resolution the fused image is compared with the ground truth; at full resolution, with
the PAN and MS it was fused from. Images are ``[C, H, W]``, PAN ``[H, W]``, in digital numbers.

Where part of a scene is nodata, ``valid`` ``[H, W]`` selects what counts: pixels, or whole blocks
for block-based indices, and only if no nodata was filtered into them. Values under the mask do not
affect a score. Without a mask the scores equal the toolbox's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ssdiff_ref.quality.checks import (
    Image,
    as_image,
    as_pair,
    blank_nodata,
    check_divisible,
    check_same_shape,
    inner_mask,
)
from ssdiff_ref.quality.filters import REACH, bicubic_quarter, mtf_filter
from ssdiff_ref.quality.quality_index import check_block, q2n, q_average, uqi
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO, interpolate
from ssdiff_trt.runtime.interpolator import REACH as INTERPOLATOR_REACH
from ssdiff_trt.runtime.sensors import Sensor

__all__ = [
    "d_lambda",
    "d_lambda_alparone",
    "d_s",
    "ergas",
    "full_resolution_scores",
    "hqnr",
    "psnr",
    "q2n",
    "q_average",
    "qnr",
    "reduced_resolution_scores",
    "sam",
    "scc",
    "ssim",
]

_COARSE_PAN_REACH = RATIO * INTERPOLATOR_REACH + 9
"""Radius, in PAN pixels, of what a pixel of the shrunk and interpolated PAN depends on."""


def _check_several_bands(image: Image, metric: str) -> None:
    if len(image) < 2:
        raise InputError(
            f"The image has 1 band, expected at least 2 because {metric} compares bands; "
            "skip this metric."
        )


def sam(fused: ArrayLike, reference: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Spectral angle mapper: mean angle between the two spectra of each pixel (``SAM.m``).

    Yuhas et al., 1992. Pixels where either spectrum is zero do not count.

    Args:
        fused: ``[C, H, W]``, C at least 2, any unit.
        reference: ground truth, likewise.
        valid: ``[H, W]`` bool; true for pixels that count.

    Returns:
        Degrees, 0 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, no pixel that counts.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    _check_several_bands(reference, "SAM")
    dot = np.einsum("chw,chw->hw", fused, reference)
    lengths = np.linalg.norm(fused, axis=0) * np.linalg.norm(reference, axis=0)
    mask = mask & (lengths > 0)
    if not mask.any():
        raise InputError("All spectra are zero, expected imagery; choose another area.")
    angles = np.arccos(np.clip(dot[mask] / lengths[mask], -1, 1))
    return float(np.degrees(angles.mean()))


def ergas(fused: ArrayLike, reference: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Relative dimensionless global error in synthesis (``ERGAS.m``; Wald, 2000), for ratio 4.

    Args:
        fused: ``[C, H, W]``, any unit.
        reference: ground truth, likewise; no band may have mean 0.
        valid: ``[H, W]`` bool; true for pixels that count.

    Returns:
        0 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, a band with mean 0.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    error = ((fused - reference)[:, mask] ** 2).mean(axis=1)
    mean = reference[:, mask].mean(axis=1)
    if not mean.all():
        band = int(np.argmin(mean != 0)) + 1
        raise InputError(
            f"Band {band} of the reference has mean 0, expected imagery because ERGAS divides by "
            "the mean; leave the band out."
        )
    return float(100 / RATIO * np.sqrt((error / mean**2).mean()))


def _gradient(image: Image) -> Image:
    """Sobel gradient magnitude of each band; zeros are assumed beyond the edges."""

    def slope(along: int, across: int) -> Image:
        smooth = ndimage.correlate1d(image, [1.0, 2.0, 1.0], axis=across, mode="constant")
        change: Image = ndimage.correlate1d(smooth, [-1.0, 0.0, 1.0], axis=along, mode="constant")
        return change

    return np.hypot(slope(-1, -2), slope(-2, -1))


def scc(fused: ArrayLike, reference: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Spatial correlation coefficient of Sobel gradients over all bands (``SCC.m``).

    After Zhou et al., 1998, with Sobel in place of their Laplacian and without subtracting the
    mean. The outermost pixels are excluded.

    Args:
        fused: ``[C, H, W]``, any unit; H and W at least 3.
        reference: ground truth, likewise.
        valid: ``[H, W]`` bool; a pixel counts if its neighbours are valid too.

    Returns:
        0..1, 1 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, no pixel that counts, an image without
            any gradient.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    if min(mask.shape) < 3:
        raise InputError(
            f"The image is {mask.shape[0]} x {mask.shape[1]} pixels, expected 3 x 3 or more; "
            "choose a larger area."
        )
    inside = np.s_[..., 1:-1, 1:-1]
    mask = inner_mask(mask[inside], 1)
    x, y = _gradient(fused[inside])[:, mask], _gradient(reference[inside])[:, mask]
    strength = np.sqrt((x**2).sum() * (y**2).sum())
    if not strength:
        raise InputError(
            "The fused image or the reference is flat, expected edges because SCC compares them; "
            "choose another area."
        )
    return float((x * y).sum() / strength)


def psnr(
    fused: ArrayLike, reference: ArrayLike, full_scale: float, valid: ArrayLike | None = None
) -> float:
    """Peak signal-to-noise ratio over all bands.

    Args:
        fused: ``[C, H, W]``, any unit.
        reference: ground truth, likewise.
        full_scale: largest possible value in that unit, such as 2047.
        valid: ``[H, W]`` bool; true for pixels that count.

    Returns:
        Decibels; infinite for equal images.

    Raises:
        SSDiffError: on differing shapes or non-finite values.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    error = ((fused - reference)[:, mask] ** 2).mean()
    return float(10 * np.log10(full_scale**2 / error)) if error else float("inf")


def ssim(
    fused: ArrayLike, reference: ArrayLike, full_scale: float, valid: ArrayLike | None = None
) -> float:
    """Structural similarity (Wang et al., 2004, eq. 13), averaged over bands.

    Gaussian windows of 11 x 11 pixels, sigma 1.5, inside the image only; K1 = 0.01, K2 = 0.03.

    Args:
        fused: ``[C, H, W]``, any unit; H and W at least 11.
        reference: ground truth, likewise.
        full_scale: largest possible value in that unit, such as 2047.
        valid: ``[H, W]`` bool; a window counts if all its pixels are valid.

    Returns:
        -1..1, 1 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, no window that counts.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    reach = 5
    if min(mask.shape) < 2 * reach + 1:
        raise InputError(
            f"The image is {mask.shape[0]} x {mask.shape[1]} pixels, expected 11 x 11 or more; "
            "choose a larger area."
        )
    inside = np.s_[reach:-reach, reach:-reach]
    mask = inner_mask(mask, reach, mode="constant")[inside]
    c1, c2 = (0.01 * full_scale) ** 2, (0.03 * full_scale) ** 2

    def weighted(band: Image) -> Image:
        blurred: Image = ndimage.gaussian_filter(band, 1.5, radius=reach)[inside]
        return blurred

    bands = []
    for x, y in zip(fused, reference, strict=True):
        mean_x, mean_y = weighted(x), weighted(y)
        variances = weighted(x * x) - mean_x**2 + weighted(y * y) - mean_y**2
        covariance = weighted(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        bands.append((luminance * (2 * covariance + c2) / (variances + c2))[mask].mean())
    return float(np.mean(bands))


def reduced_resolution_scores(
    fused: ArrayLike,
    reference: ArrayLike,
    full_scale: float,
    cut: int = 21,
    valid: ArrayLike | None = None,
) -> dict[str, float]:
    """All metrics of an image with known ground truth (``indexes_evaluation.m``).

    Args:
        fused: ``[C, H, W]``, digital numbers.
        reference: ground truth, likewise.
        full_scale: largest possible digital number, 2047 for 11 bit.
        cut: the toolbox's ``dim_cut``: only pixels from ``cut - 1`` to ``-cut`` count, because
            methods differ in their edge handling. 0 for all pixels.
        valid: ``[H, W]`` bool; true for pixels that count.

    Returns:
        SAM (degrees), ERGAS, Q2n, SCC, PSNR (dB), SSIM.

    Raises:
        SSDiffError: as the metrics do; the area inside the cut must contain a 32 x 32 block.
    """
    fused, reference, mask = as_pair(fused, reference, valid)
    inside = np.s_[..., cut - 1 : -cut, cut - 1 : -cut] if cut else np.s_[...]
    x, y, mask = fused[inside], reference[inside], mask[inside]
    if min(y.shape[-2:]) < 1:
        raise InputError(
            f"The image is {reference.shape[1]} x {reference.shape[2]} pixels and the protocol "
            f"cuts off {2 * cut - 1}, expected more than that on each side; give a larger image."
        )
    return {
        "SAM": sam(x, y, mask),
        "ERGAS": ergas(x, y, mask),
        "Q2n": q2n(x, y, mask),
        "SCC": scc(x, y, mask),
        "PSNR": psnr(x, y, full_scale, mask),
        "SSIM": ssim(x, y, full_scale, mask),
    }


def d_lambda(
    fused: ArrayLike, lms: ArrayLike, sensor: Sensor, valid: ArrayLike | None = None
) -> float:
    """Spectral distortion D_lambda (Khan et al., 2009; ``D_lambda_K.m``).

    One minus Q2n between the fused image, blurred by the sensor's MTF, and ``lms``.

    Args:
        fused: ``[C, H, W]``, digital numbers.
        lms: MS interpolated to the size of PAN, likewise.
        sensor: sensor that acquired MS and PAN.
        valid: ``[H, W]`` bool; a block counts if all pixels in it, or blurred into it, are valid.

    Returns:
        0..1, 0 is best.

    Raises:
        SSDiffError: on mismatched shapes or bands, non-finite values, images smaller than a block,
            no valid block.
    """
    fused, lms, mask = as_pair(fused, lms, valid, "LMS")
    return 1 - q2n(mtf_filter(fused, sensor), lms, inner_mask(mask, REACH))


def d_lambda_alparone(fused: ArrayLike, lms: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Spectral distortion D_lambda (Alparone et al., 2008; ``D_lambda.m``).

    Mean absolute change of the UQI between pairs of bands, from ``lms`` to the fused image.

    Args:
        fused: ``[C, H, W]``, C at least 2, digital numbers.
        lms: MS interpolated to the size of PAN, likewise.
        valid: ``[H, W]`` bool; a block counts if all its pixels are valid.

    Returns:
        0 is best.

    Raises:
        SSDiffError: on differing shapes, non-finite values, images smaller than a block, no valid
            block.
    """
    fused, lms, mask = as_pair(fused, lms, valid, "LMS")
    _check_several_bands(lms, "D_lambda")
    change = np.abs(uqi(fused, fused, mask) - uqi(lms, lms, mask))
    return float(change[np.triu_indices(len(change), k=1)].mean())


def d_s(fused: ArrayLike, pan: ArrayLike, lms: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Spatial distortion D_s (Alparone et al., 2008; ``D_s.m``).

    Mean absolute change of the UQI between each band and PAN. ``lms`` is compared with PAN shrunk
    by 4 and interpolated back. Shrinking centres a pixel on 4 n + 1.5, interpolating puts it on
    4 n + 2; this half-pixel offset is part of the toolbox and of published scores.

    Args:
        fused: ``[C, H, W]``, digital numbers; H and W multiples of 4. Incomplete blocks at the
            right and bottom do not count; the toolbox rejects such sizes.
        pan: ``[H, W]``, digital numbers.
        lms: ``[C, H, W]``, MS interpolated to the size of PAN.
        valid: ``[H, W]`` bool; a block counts if it and all PAN pixels it depends on are valid.

    Returns:
        0 is best.

    Raises:
        SSDiffError: on mismatched shapes, non-finite values, images smaller than a block, no valid
            block.
    """
    fused, lms, mask = as_pair(fused, lms, valid, "LMS")
    pan = as_image(pan, "PAN", "[H, W]")
    check_same_shape(fused[0], "band of the fused image", pan, "PAN")
    check_block(pan)
    check_divisible(pan)
    pan = blank_nodata(pan, "PAN", mask)
    # The interpolator wraps around the edges.
    mask = inner_mask(mask, _COARSE_PAN_REACH, mode="wrap")
    coarse_pan = interpolate(bicubic_quarter(pan), border="wrap")
    change = uqi(fused, pan[None], mask) - uqi(lms, coarse_pan[None], mask)
    return float(np.abs(change).mean())


def hqnr(
    fused: ArrayLike,
    pan: ArrayLike,
    lms: ArrayLike,
    sensor: Sensor,
    valid: ArrayLike | None = None,
) -> float:
    """Hybrid quality with no reference, HQNR: ``(1 - D_lambda) (1 - D_s)`` (Aiazzi et al., 2014).

    Arguments, range and errors are those of :func:`d_lambda` and :func:`d_s`; 1 is best.
    """
    return (1 - d_lambda(fused, lms, sensor, valid)) * (1 - d_s(fused, pan, lms, valid))


def qnr(fused: ArrayLike, pan: ArrayLike, lms: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Quality with no reference, QNR (Alparone et al., 2008; ``QNR.m``), all exponents 1.

    Like :func:`hqnr`, but with :func:`d_lambda_alparone`; 1 is best.
    """
    return (1 - d_lambda_alparone(fused, lms, valid)) * (1 - d_s(fused, pan, lms, valid))


def full_resolution_scores(
    fused: ArrayLike,
    pan: ArrayLike,
    lms: ArrayLike,
    sensor: Sensor,
    valid: ArrayLike | None = None,
) -> dict[str, float]:
    """All metrics of an image without ground truth (``indexes_evaluation_FS.m``), edges included.

    Args:
        fused: ``[C, H, W]``, digital numbers; H and W multiples of 4, at least 32.
        pan: ``[H, W]``, digital numbers.
        lms: ``[C, H, W]``, MS interpolated to the size of PAN.
        sensor: sensor that acquired MS and PAN.
        valid: ``[H, W]`` bool; true where all three images are valid. Must exclude pixels of
            ``lms`` into which nodata was interpolated.

    Returns:
        D_lambda (Khan et al.), D_s, HQNR, QNR.

    Raises:
        SSDiffError: as :func:`d_lambda` and :func:`d_s` do.
    """
    spectral, spatial = d_lambda(fused, lms, sensor, valid), d_s(fused, pan, lms, valid)
    return {
        "D_lambda": spectral,
        "D_s": spatial,
        "HQNR": (1 - spectral) * (1 - spatial),
        "QNR": (1 - d_lambda_alparone(fused, lms, valid)) * (1 - spatial),
    }
