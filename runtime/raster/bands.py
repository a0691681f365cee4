"""Which band of an image is which: by its name, colour interpretation or wavelength."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from ssdiff_trt.runtime.raster.header import colours_of, descriptions_of
from ssdiff_trt.runtime.sensors import BAND_NAMES, BGRN, WV8
from ssdiff_trt.runtime.sources import Identified

ORDERS = (BGRN, WV8)
"""Bands that networks are made for, in the order that they expect."""
_COLOURS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
    ColorInterp.nir: "nir",
}
_LETTERS = {"b": "blue", "g": "green", "r": "red", "n": "nir"}
_SYNONYMS = {
    **{"near infrared": "nir", "near ir": "nir", "infrared": "nir", "ir": "nir"},
    **{"coastal blue": "coastal", "coastal aerosol": "coastal", "rededge": "red edge"},
    **{"near infrared 1": "nir1", "near infrared 2": "nir2"},
}
_RANGES = {"blue": (0.43, 0.53), "green": (0.5, 0.61), "red": (0.6, 0.71), "nir": (0.71, 1.1)}
"""Wavelengths of the four usual bands in micrometres; where two overlap, the order decides."""


def identify(image: DatasetReader, bands: Sequence[int]) -> Identified | None:
    """What an image says of bands; None if it says nothing.

    Names, colour interpretation and wavelengths are tried in this order: the first that gives blue,
    green, red and nir, or WorldView's eight, counts for all bands. If none does, bands with names
    are known by these.
    """
    for names, reason in _candidates(image, bands):
        if sorted(names) in map(sorted, ORDERS):
            return Identified(tuple(names), reason, complete=True)
    names, reason = next(_candidates(image, bands))
    known = [name for name in names if name]
    if not known or len(set(known)) < len(known):  # a word that all names share says nothing
        return None
    return Identified(tuple(names), reason, complete=False)


def in_order(image: DatasetReader, bands: Sequence[int]) -> tuple[int, ...]:
    """Bands in the order that networks expect, if all of them are identified."""
    found = identify(image, bands)
    if not found or not found.complete:
        return tuple(bands)
    (order,) = (order for order in ORDERS if len(order) == len(bands))
    return tuple(bands[found.names.index(name)] for name in order)


def colours(image: DatasetReader, used: Sequence[int]) -> list[ColorInterp]:
    """Colour interpretations of bands that are used as colours: those of the file, else those of
    their names; never alpha."""
    by_name = {name: colour for colour, name in _COLOURS.items()}
    found, stated, names = [], colours_of(image), descriptions_of(image)
    for band in used:
        colour = stated[band - 1]
        if colour in (ColorInterp.undefined, ColorInterp.gray, ColorInterp.alpha):
            name = _known(names[band - 1] or "")
            other = ColorInterp.undefined if colour == ColorInterp.alpha else colour
            colour = by_name.get(name, other)
        found.append(colour)
    return found


def _candidates(image: DatasetReader, bands: Sequence[int]) -> Iterator[tuple[list[str], str]]:
    """Names of bands by their own names, colour interpretation and wavelengths, empty where
    unknown."""
    named, stated = descriptions_of(image), colours_of(image)
    names = [_known(named[band - 1] or "") for band in bands]
    if len(bands) == len(BGRN) and "nir" not in names:
        names = ["nir" if name == "nir1" else name for name in names]
    yield names, "as they are named"
    colours = [_COLOURS.get(stated[band - 1], "") for band in bands]
    # GDAL marks any four bands of 8 bits as red, green, blue and alpha: that says nothing.
    if ColorInterp.alpha not in (stated[band - 1] for band in bands):
        if len(bands) == len(BGRN) and colours.count("") == 1:
            colours[colours.index("")] = next(iter(set(BGRN) - set(colours)))
        yield colours, "by colour interpretation"
    wavelengths = [_wavelength(image, band) for band in bands]
    known = [value for value in wavelengths if value]
    for order in ORDERS:
        if len(known) == len(bands) == len(order) == len(set(known)):
            ranked = sorted(known)
            names = [order[ranked.index(value)] for value in known]
            if order == WV8 or all(
                _fits(name, value) for name, value in zip(names, known, strict=True)
            ):
                yield names, "by wavelength"


def _known(name: str) -> str:
    """A band's name in the words of :mod:`ssdiff_trt.runtime.sensors`: what it is, or the one of
    these words in it, as in the names of files; empty if there is none or several."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    found, begin = set(), 0
    while begin < len(words):
        for end in range(min(begin + 3, len(words)), begin, -1):
            text = " ".join(words[begin:end])
            if end == len(words):
                text = _LETTERS.get(text, text)
            if (text := _SYNONYMS.get(text, text)) in BAND_NAMES:
                found.add(text)
                break
        begin = end
    return found.pop() if len(found) == 1 else ""


def _wavelength(image: DatasetReader, band: int) -> float | None:
    """Central wavelength of a band in micrometres, as GDAL and ENVI state it."""
    tags = {key.lower(): value for key, value in image.tags(band).items()}
    stated = image.tags(band, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM") or tags.get("wavelength")
    number = re.match(r"\s*(\d+\.?\d*)", stated or "")
    if not number or not float(number[1]):
        return None
    value = float(number[1])
    return value / 1000 if value > 100 else value  # nanometres


def _fits(name: str, wavelength: float) -> bool:
    low, high = _RANGES[name]
    return low <= wavelength <= high
