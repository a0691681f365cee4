"""Metadata that a result takes over from its scene: all but what its own pixels contradict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rasterio.io import DatasetReader, DatasetWriter

from ssdiff_trt.runtime.raster.header import units_of

_OF_THE_FILE = {
    "AREA_OR_POINT",  # that of PAN is
    "TIFFTAG_SOFTWARE",
    "TIFFTAG_XRESOLUTION",
    "TIFFTAG_YRESOLUTION",
    "TIFFTAG_RESOLUTIONUNIT",
    "OVR_RESAMPLING_ALG",
}
_PREFIXES = ("STATISTICS_", "SSDIFF_")
_DOMAINS = {
    "IMAGE_STRUCTURE",
    "DERIVED_SUBDATASETS",
    "SUBDATASETS",
    "GEOLOCATION",
    "RPC",  # written by themselves, moved with the extent
    "COLOR_PROFILE",
    "TIFF",
    "EXIF",
    "CFA",
}
"""Domains that describe a file and not the scene."""


def carry_metadata(
    file: DatasetWriter,
    pan: DatasetReader,
    ms: DatasetReader,
    bands: Sequence[int],
    line: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Copy the metadata of a scene: tags and domains such as IMD and IMAGERY, of MS before those of
    PAN, and for each band units, scale, offset, wavelength and calibration.

    Args:
        file: the result.
        pan: PAN.
        ms: MS.
        bands: bands of MS in the order of the result.
        line: factor and constant that make digital numbers of MS of values of the result.
    """
    for image in (pan, ms):
        _copy(image, 0, file, 0)
    if area := pan.tags().get("AREA_OR_POINT"):
        file.update_tags(AREA_OR_POINT=area)
    factor, constant = line
    scales = [ms.scales[band - 1] for band in bands]
    offsets = [ms.offsets[band - 1] for band in bands]
    if set(scales) != {1.0} or set(offsets) != {0.0} or line != (1.0, 0.0):
        file.scales = [scale * factor for scale in scales]
        file.offsets = [
            offset + scale * constant for scale, offset in zip(scales, offsets, strict=True)
        ]
    stated = units_of(ms)
    if any(units := [stated[band - 1] or "" for band in bands]):
        file.units = units
    for place, band in enumerate(bands, start=1):
        _copy(ms, band, file, place)


def _copy(image: DatasetReader, band: int, file: DatasetWriter, place: int) -> None:
    """Copy the tags of a band, or of the image where it is 0."""
    for domain in (None, *image.tag_namespaces(band)):
        if domain in _DOMAINS or (domain or "").startswith("xml:"):
            continue
        if tags := _of_the_scene(image.tags(band, ns=domain)):
            file.update_tags(place, ns=domain, **tags)


def _of_the_scene(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in tags.items()
        if key not in _OF_THE_FILE and not key.startswith(_PREFIXES)
    }
