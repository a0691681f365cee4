"""Products of Airbus and Maxar as they are delivered: their images, and what is stated of them.

Airbus (SPOT 6 and 7, Pleiades, Pleiades Neo) describes each image in a DIMAP document
``DIM_*.XML``, version 2, and lists these in ``VOL_*.XML``. Maxar describes each image in an
``.IMD`` file, with its tiles in the ``.TIL`` file beside it. GDAL mosaics the tiles of both; only
what it does not pass on is read here: which image is PAN and which MS, the order of the bands, the
value that means no data (DIMAP; an IMD does not state it), and full scale.

Written from the descriptions of the formats and tried on synthetic products only: no delivered
product of either company, no tiles in JPEG 2000 or NITF, and no DIMAP of version 1.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast
from xml.etree import ElementTree

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import reading
from ssdiff_trt.runtime.sensors import BGRN, SENSORS, WV8

Entry: TypeAlias = Path | zipfile.Path
"""A file or folder, on disk or in a ZIP."""

_DIMAP_BANDS = {
    **{"B0": "blue", "B1": "green", "B2": "red", "B3": "nir"},
    **{"B": "blue", "G": "green", "R": "red", "NIR": "nir", "RE": "red edge", "DB": "deep blue"},
}
"""Bands by their ``BAND_ID``."""
_IMD_BANDS = {
    **{"C": "coastal", "B": "blue", "G": "green", "Y": "yellow", "R": "red", "RE": "red edge"},
    **{"N": "nir", "N2": "nir2"},
}
"""Bands by the end of their group's name, such as ``BAND_C``."""
_IMD_SENSORS = {"WV02": "wv2", "WV03": "wv3", "WV04": "wv4", "QB02": "qb", "GE01": "ge1"}
"""Sensors by their ``satId``."""
_MOST_FILES = 100_000
_LARGEST = 32 << 20
"""Bytes of a file of metadata."""


@dataclass(frozen=True)
class ProductImage:
    """One image of a product."""

    metadata: str
    """Name of the file that describes it."""
    path: str
    """What GDAL opens."""
    kind: str
    """``PAN``, ``MS``, or what its metadata call it."""
    sensor: str
    bands: tuple[str, ...]
    """Names of its bands, in the order of the file; empty where that is not stated."""
    nodata: float | None
    full_scale: float | None


@dataclass(frozen=True)
class Product:
    """PAN and MS of a product."""

    pan: ProductImage
    ms: ProductImage

    @property
    def bands(self) -> tuple[int, ...] | None:
        """Bands of MS in the order of the network; None where MS does not have all of them."""
        names = self.ms.bands
        order = next((order for order in (WV8, BGRN) if set(order) <= set(names)), None)
        return tuple(names.index(name) + 1 for name in order) if order else None

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a run that were given, and for the others what the metadata state.

        Raises:
            InputError: if nothing states the order of the bands.
        """
        pan, ms = self.pan, self.ms
        stated: dict[str, Any] = {"bands": self.bands}
        if given.get("nodata") is None:  # one that is given is meant for both
            stated |= {"pan_nodata": pan.nodata, "ms_nodata": ms.nodata}
        if given.get("full_scale") is None:  # likewise
            stated |= {"pan_full_scale": pan.full_scale, "full_scale": ms.full_scale}
        chosen = {name: value for name, value in stated.items() if given.get(name) is None}
        if not ms.bands and "bands" in chosen:
            raise InputError(
                f"{ms.metadata} does not state the order of the bands (Raster_Index_List); name "
                "those of blue, green, red and near infrared in this order with `bands`."
            )
        return {**given, **chosen}

    def describe(self) -> str:
        """One line: what was read from the metadata."""
        stated = []
        if self.bands:
            names = ", ".join(self.ms.bands[band - 1] for band in self.bands)
            stated.append(f"bands {','.join(map(str, self.bands))} ({names})")
        for role, image in (("PAN", self.pan), ("MS", self.ms)):
            if image.nodata is not None:
                stated.append(f"nodata of {role} {image.nodata:g}")
            if image.full_scale is not None:
                stated.append(f"full scale of {role} {image.full_scale:g}")
        found = ", ".join(stated) or "neither bands, nodata nor full scale"
        return f"{self.ms.sensor}, as {self.pan.metadata} and {self.ms.metadata} state: {found}"


def read_product(path: str | Path) -> Product:
    """Find PAN and MS of a product, and read their metadata.

    Args:
        path: the folder of the product, at any depth, or a ZIP of it; ``VOL_*.XML``.

    Raises:
        InputError: unless there is one PAN and one MS, with metadata that can be read.
    """
    path = Path(path)
    with reading(f"{path.name} cannot be read", "get it again"):
        images = [_read(file) for file in _described(path)]
    if not images:
        raise InputError(
            f"MS is missing, and {path.name or path} is not a product that states it: a folder, "
            "ZIP or VOL_*.XML with DIM_*.XML files (Airbus) or .IMD files (Maxar); give MS, or a "
            "product."
        )
    pan, ms = ([image for image in images if image.kind == kind] for kind in ("PAN", "MS"))
    if len(pan) != 1 or len(ms) != 1:
        found = ", ".join(f"{image.metadata} ({image.kind})" for image in images)
        raise InputError(
            f"{path.name} describes {found}, expected one PAN and one MS; give the folder that has "
            "these two alone, or give PAN and MS."
        )
    return Product(pan[0], ms[0])


def _described(path: Path) -> Iterator[Entry]:
    """The files that describe the images of a product."""
    if os.path.isdir(path):
        yield from filter(_describes, _files(path))
    elif path.suffix.lower() == ".zip" and os.path.isfile(path):
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
            _check_count(path, len(names))
            yield from filter(_describes, (zipfile.Path(archive, name) for name in names))
    elif re.fullmatch(r"VOL_.*\.XML", path.name, re.IGNORECASE) and os.path.isfile(path):
        links = (path.parent / link.get("href", "") for link in _parse(path).iter("COMPONENT_PATH"))
        yield from filter(_describes, links)
    elif path.suffix.lower() == ".til" and os.path.isfile(path):
        yield from _beside(path, ".imd")
    elif _describes(path):
        yield path


def _describes(file: Entry) -> bool:
    named = re.fullmatch(r"DIM_.*\.XML|.*\.IMD", file.name, re.IGNORECASE) is not None
    return named and file.is_file()


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, each folder once: links may lead in circles.

    Raises:
        InputError: if there are more than a product has.
    """
    seen: set[str] = set()
    count = 0
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        count += len(files) + 1
        _check_count(folder, count)
        yield from (Path(place, name) for name in sorted(files))


def _check_count(product: Path, files: int) -> None:
    if files > _MOST_FILES:
        raise InputError(
            f"{product} has more than {_MOST_FILES} files, expected those of one product; give the "
            "product's own folder."
        )


def _beside(file: Entry, *suffixes: str) -> Iterator[Entry]:
    """Files beside one, of the same name but for these suffixes, in the order of the suffixes."""
    stem = file.name.rpartition(".")[0].lower()
    folder = cast(Entry, file.parent)
    others = {entry.name.lower(): entry for entry in folder.iterdir()}
    return (others[stem + suffix] for suffix in suffixes if stem + suffix in others)


def _gdal_path(entry: Entry) -> str:
    return str(entry) if isinstance(entry, Path) else f"/vsizip/{entry}"


def _read(file: Entry) -> ProductImage:
    """The image that a file describes."""
    read = _read_imd if file.name.lower().endswith(".imd") else _read_dimap
    try:
        return read(file)
    except InputError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise InputError(f"{file.name} has a wrong value ({error}); get it again.") from None


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses document types, and with them entities: metadata have none."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it declares a document type, {name}")


def _parse(file: Entry) -> ElementTree.Element:
    """The root of an XML file."""
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    try:
        return ElementTree.fromstring(_content(file), parser)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # of unknown encodings too
        raise InputError(f"{file.name} is not plain XML ({error}); get it again.") from None


def _content(file: Entry) -> bytes:
    """All bytes of a file, which may be compressed.

    Raises:
        ValueError: if it is larger than metadata are.
    """
    with file.open("rb") as opened:
        content: bytes = opened.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST >> 20} MiB")
    return content


def _read_dimap(file: Entry) -> ProductImage:
    document = _parse(file)
    kind = document.findtext(".//SPECTRAL_PROCESSING", "an unstated kind")
    mission = document.findtext(".//MISSION", "DIMAP"), document.findtext(".//MISSION_INDEX", "")
    special = {
        value.findtext("SPECIAL_VALUE_TEXT"): float(value.findtext("SPECIAL_VALUE_COUNT", ""))
        for value in document.iter("Special_Value")
    }
    return ProductImage(
        metadata=file.name,
        path=_gdal_path(file),
        kind={"P": "PAN"}.get(kind, "MS" if kind.startswith("MS") else kind),
        sensor=" ".join(mission).strip(),
        bands=_dimap_bands(document),
        nodata=special.get("NODATA"),
        full_scale=_dimap_full_scale(document),
    )


def _dimap_bands(document: ElementTree.Element) -> tuple[str, ...]:
    """Names of the bands. Each part of the files has a list of its own; GDAL joins the parts."""
    names: list[str] = []
    for part in document.iter("Raster_Index_List"):
        indices = sorted(
            (int(band.findtext("BAND_INDEX", "")), band.findtext("BAND_ID", ""))
            for band in part.iter("Raster_Index")
        )
        names += [_DIMAP_BANDS.get(name, name) for _, name in indices]
    return tuple(names) if len(names) == int(document.findtext(".//NBANDS", "0")) else ()


def _dimap_full_scale(document: ElementTree.Element) -> float | None:
    """Full scale: that of the bits in use, or the number that stands for a reflectance of 1."""
    if document.findtext(".//RADIOMETRIC_PROCESSING") == "REFLECTANCE":
        gains = {float(band.findtext("GAIN", "")) for band in document.iter("Band_Reflectance")}
        if not all(0 < gain < math.inf for gain in gains):
            raise ValueError(f"GAIN {min(gains):g}")
        return gains.pop() if len(gains) == 1 else None
    stated = (document.findtext(f".//{tag}") for tag in ("PRODUCT_RANGE", "NBITS"))
    return _of_bits(min((int(bits) for bits in stated if bits), default=16))


def _of_bits(bits: int) -> float | None:
    """Full scale; 16 is the size of the type, which does not say how many bits are in use."""
    if bits < 1:
        raise ValueError(f"{bits} bits")
    return 2.0**bits - 1 if bits < 16 else None


def _read_imd(file: Entry) -> ProductImage:
    text = _content(file).decode("latin-1")
    pairs = re.findall(r'^\s*(\w+)\s*=\s*"?([^";\r\n]*)', text, re.MULTILINE)
    values = dict(reversed(pairs))  # the first of several images stands for all
    groups = [
        value.removeprefix("BAND_")
        for key, value in pairs
        if key == "BEGIN_GROUP" and value.startswith("BAND_")
    ]
    bands = [_IMD_BANDS.get(group, group) for group in groups]
    if "nir2" in bands:
        bands = ["nir1" if name == "nir" else name for name in bands]
    kind = "MS" if bands and set(groups) <= set(_IMD_BANDS) else values.get("bandId", "unstated")
    if values.get("panSharpenAlgorithm", "None") != "None":
        kind = "pansharpened"
    sensor = values.get("satId", "Maxar")
    bits = int(values.get("bitsPerPixel", "16"))
    as_acquired = (
        values.get("radiometricLevel", "Corrected") == "Corrected"
        and values.get("radiometricEnhancement", "Off") == "Off"
    )
    if bits == 16 and as_acquired and sensor in _IMD_SENSORS:
        bits = SENSORS[_IMD_SENSORS[sensor]].bits
    image = next(_beside(file, ".til", ".tif", ".ntf"), None)
    if image is None:
        raise InputError(f"{file.name} has no .TIL, .TIF or .NTF file beside it; get it again.")
    return ProductImage(
        metadata=file.name,
        path=_gdal_path(image),
        kind="PAN" if kind == "P" else kind,
        sensor=sensor,
        bands=tuple(bands),
        nodata=None,
        full_scale=_of_bits(bits),
    )
