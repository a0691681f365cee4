"""A virtual raster of the blocks of a result that are finished, while the run goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from rasterio.enums import ColorInterp

from ssdiff_trt.runtime.errors import OutputError
from ssdiff_trt.runtime.files import atomic_write, check_target
from ssdiff_trt.runtime.raster.gdal import DATA_TYPES
from ssdiff_trt.runtime.sources import Rectangle

STATUS = "SSDIFF_STATUS"
"""Metadata of such a file, which says that it is partial."""


class LiveView:
    """A VRT that shows finished blocks, and is rewritten for each of them.

    What is not finished is masked. Metadata item ``SSDIFF_STATUS`` says how much is.

    Args:
        path: of the VRT. A file there is replaced if it is one of these, from a run that was
            killed.
        inputs: files that it must not be.
        overwrite: whether any file is replaced.

    Raises:
        OutputError: if it cannot be written there.
    """

    def __init__(self, path: str | Path, inputs: Iterable[str], overwrite: bool) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".vrt":
            raise OutputError(f"The view is a VRT and {path} is no name for one; end in .vrt.")
        check_target(self.path, inputs, overwrite or self._is_ours(), "live")

    def _is_ours(self) -> bool:
        try:
            return STATUS.encode() in self.path.read_bytes()[:4096]
        except OSError:
            return False

    def show(
        self,
        profile: dict[str, Any],
        names: Sequence[str | None],
        colours: Sequence[ColorInterp],
        extent: Rectangle,
        files: dict[Rectangle, Path],
        blocks: int,
    ) -> None:
        """Write the VRT.

        Args:
            profile: size, type, nodata and georeferencing of the result.
            names: of its bands.
            colours: of its bands.
            extent: its rows and columns of PAN.
            files: of finished blocks.
            blocks: number of all blocks.
        """
        size = {"rasterXSize": str(profile["width"]), "rasterYSize": str(profile["height"])}
        root = Element("VRTDataset", size)
        metadata = SubElement(root, "Metadata")
        status = f"partial: {len(files)} of {blocks} blocks are finished"
        SubElement(metadata, "MDI", {"key": STATUS}).text = status
        if profile["crs"]:
            SubElement(root, "SRS").text = profile["crs"].to_wkt()
        if "transform" in profile:
            numbers = map(repr, map(float, profile["transform"].to_gdal()))
            SubElement(root, "GeoTransform").text = ", ".join(numbers)
        kind = DATA_TYPES[profile["dtype"].name]
        for number, (name, colour) in enumerate(zip(names, colours, strict=True), start=1):
            band = SubElement(root, "VRTRasterBand", {"dataType": kind, "band": str(number)})
            if name:
                SubElement(band, "Description").text = name
            if colour != ColorInterp.undefined:
                SubElement(band, "ColorInterp").text = colour.name.capitalize()
            if profile["nodata"] is not None:
                SubElement(band, "NoDataValue").text = repr(profile["nodata"])
            _add_sources(band, str(number), extent, files)
        if profile["nodata"] is None:
            mask = SubElement(SubElement(root, "MaskBand"), "VRTRasterBand", {"dataType": "Byte"})
            _add_sources(mask, "mask,1", extent, files)
        with atomic_write(self.path) as unfinished:
            unfinished.write_bytes(tostring(root))

    def remove(self) -> None:
        """Remove the VRT, if it was written."""
        if self._is_ours():
            self.path.unlink()


def _add_sources(
    band: Element, source: str, extent: Rectangle, files: dict[Rectangle, Path]
) -> None:
    top, left = (axis.start for axis in extent)
    for (rows, cols), file in files.items():
        size = {"xSize": str(len(cols)), "ySize": str(len(rows))}
        part = SubElement(band, "SimpleSource")
        name = SubElement(part, "SourceFilename", {"relativeToVRT": "0"})
        name.text = str(file.absolute())
        SubElement(part, "SourceBand").text = source
        SubElement(part, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        place = {"xOff": str(cols.start - left), "yOff": str(rows.start - top)}
        SubElement(part, "DstRect", {**place, **size})
