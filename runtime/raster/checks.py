"""TODO."""

from __future__ import annotations

from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.radiometry import STATED, Scale, survey
from ssdiff_trt.runtime.raster.scene import Scene, mask_flags


def check_values(scene: Scene, pan_scale: Scale, ms_scale: Scale, progress: Progress) -> None:
    """Warn where a sample of the images speaks against what is taken for granted of their values.

    Raises:
        SSDiffError: if the images are reflectance in 0..1 and nobody said so.
    """
    for role, image, used, scale in (
        ("PAN", scene.pan, [scene.pan_band], pan_scale),
        ("MS", scene.ms, scene.bands, ms_scale),
    ):
        found = survey(image, used)
        if found.zeros > 0.01 and scene.nodata is None and not mask_flags(image, used):
            progress.warn(
                f"{found.zeros:.0%} of a sample of {role} is 0 and nothing is declared as no data; "
                "if these pixels are empty, pass --nodata 0"
            )
        if not found.largest or scale.reason == STATED:
            continue
        if image.dtypes[used[0] - 1].startswith("float") and found.largest <= 2 < scale.value:
            raise SSDiffError(
                f"{role} holds fractions, up to {found.largest:.3g} in a sample, and full scale "
                f"would be {scale}; say what full scale is, for reflectance --full-scale 1."
            )
        if not 0.02 * scale.value < found.largest <= scale.value:
            progress.warn(
                f"the largest {role} value in a sample is {found.largest:.4g} and full scale is "
                f"taken to be {scale.value:g}; if the data has another, pass --full-scale"
            )
