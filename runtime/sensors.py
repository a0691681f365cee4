"""Sensors: band names, bit depth and modulation transfer function (MTF)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ssdiff_trt.runtime.errors import InputError

BGRN = ("blue", "green", "red", "nir")
WV8 = ("coastal", "blue", "green", "yellow", "red", "red edge", "nir1", "nir2")
BAND_NAMES = frozenset(BGRN + WV8)
_FOUR_OF_WV8 = ("blue", "green", "red", "nir1")


@dataclass(frozen=True)
class Sensor:
    """A sensor: its multispectral bands, bit depth and MTF."""

    name: str
    """Short name, as used for options."""
    title: str
    """Full name."""
    bands: tuple[str, ...]
    """MS band names, in the order that networks expect."""
    bits: int
    """Radiometric resolution."""
    mtf_ms: tuple[float, ...]
    """MTF gain of each MS band at the Nyquist frequency of MS, 0..1."""
    mtf_pan: float
    """MTF gain of PAN at the Nyquist frequency of PAN, 0..1."""
    mtf_source: str
    """Source of the MTF gains."""

    @property
    def full_scale(self) -> int:
        """The largest digital number; inputs of the network are divided by it."""
        return (1 << self.bits) - 1

    def band_names(self, count: int) -> tuple[str, ...]:
        """Band names of a model with ``count`` bands; with ``generic`` eight are WorldView's.

        Raises:
            InputError: if the sensor has another number of bands and is not ``generic``.
        """
        if self.name == "generic":
            known = {len(names): names for names in (BGRN, WV8)}
            return known.get(count, tuple(f"band {number}" for number in range(1, count + 1)))
        if count != len(self.bands):
            raise InputError(
                f"{self.title} has {len(self.bands)} bands and the weights have {count}; "
                "choose the sensor that the weights were trained for, or generic."
            )
        return self.bands

    def fitted(self, count: int) -> Sensor:
        """The sensor for an image of ``count`` bands: ``generic`` has any number of them, and the
        bands of a product with four of eight are blue, green, red and the first near infrared. Any
        other number is left as it is."""
        if self.name == "generic":
            return replace(self, bands=self.band_names(count), mtf_ms=(self.mtf_ms[0],) * count)
        if self.bands == WV8 and count == len(_FOUR_OF_WV8):
            gains = tuple(self.mtf_ms[WV8.index(band)] for band in _FOUR_OF_WV8)
            return replace(self, bands=_FOUR_OF_WV8, mtf_ms=gains)
        return self


_WV3_MTF = (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315)
_ANY_MTF = (0.30,) * 4
_DLPAN = "DLPan-Toolbox (Deng et al., 2022), genMTF.m and MTF_PAN.m"
_DLPAN_OTHER = f"{_DLPAN}: its default values for sensors that it does not list"
# Public pansharpening code uses 0.30 for each band of Pleiades; no per-band in-flight measurements
# were found. For PAN, CNES specified 0.09 for the instrument and 0.2 for the restored product
# (ISPRS Archives XXXV-B1, Istanbul 2004), on the 0.7 m grid, not on the 0.5 m grid as delivered.
_PLEIADES = f"no measured values found; {_DLPAN_OTHER}"

SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor("wv2", "WorldView-2", WV8, 11, (0.35,) * 7 + (0.27,), 0.11, _DLPAN),
        Sensor("wv3", "WorldView-3", WV8, 11, _WV3_MTF, 0.14, _DLPAN),
        Sensor("wv4", "WorldView-4", BGRN, 11, (0.23,) * 4, 0.16, _DLPAN),
        Sensor("qb", "QuickBird", BGRN, 11, (0.34, 0.32, 0.30, 0.22), 0.15, _DLPAN),
        Sensor("gf2", "GaoFen-2", BGRN, 10, _ANY_MTF, 0.15, _DLPAN_OTHER),
        Sensor("ikonos", "IKONOS", BGRN, 11, (0.26, 0.28, 0.29, 0.28), 0.17, _DLPAN),
        Sensor("ge1", "GeoEye-1", BGRN, 11, (0.23,) * 4, 0.16, _DLPAN),
        Sensor("pleiades", "Pleiades", BGRN, 12, _ANY_MTF, 0.15, _PLEIADES),
        Sensor("generic", "any sensor", BGRN, 11, _ANY_MTF, 0.15, _DLPAN_OTHER),
    )
}


def optics_of(name: str, bands: int) -> Sensor:
    """The sensor whose MTF describes images of a sensor: ``generic`` for one that is not in
    :data:`SENSORS` or has other bands."""
    generic = SENSORS["generic"]
    sensor = SENSORS.get(name, generic).fitted(bands)
    return sensor if len(sensor.mtf_ms) == bands else generic.fitted(bands)


def mtf_sigma(gain: float, scale: float) -> float:
    """Standard deviation, in pixels of PAN, of the Gaussian whose MTF is ``gain`` at the Nyquist
    frequency of pixels that are ``scale`` times as large."""
    return scale * math.sqrt(-2 * math.log(gain)) / math.pi


def find_sensor(name: str) -> Sensor:
    """The sensor with a name from :data:`SENSORS`.

    Raises:
        InputError: if the name is unknown.
    """
    try:
        return SENSORS[name]
    except KeyError:
        names = ", ".join(SENSORS)
        raise InputError(f"The sensor {name!r} is unknown; choose one of {names}.") from None
