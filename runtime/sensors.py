"""The satellites whose imagery is known by name."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import SSDiffError

BGRN = ("blue", "green", "red", "nir")
WV8 = ("coastal", "blue", "green", "yellow", "red", "red edge", "nir1", "nir2")


@dataclass(frozen=True)
class Sensor:
    """A sensor: its multispectral bands in the order that networks expect, and its bit depth."""

    name: str
    title: str
    bands: tuple[str, ...]
    bits: int

    @property
    def full_scale(self) -> int:
        """The largest digital number; inputs of the network are divided by it."""
        return 2**self.bits - 1

    def band_names(self, count: int) -> tuple[str, ...]:
        """Names of the bands of a model with ``count`` of them."""
        if self.name == "generic" and count != len(self.bands):
            return tuple(f"band {number}" for number in range(1, count + 1))
        if count != len(self.bands):
            raise SSDiffError(
                f"{self.title} has {len(self.bands)} bands and the weights have {count}; "
                "choose the sensor that they were trained for, or generic."
            )
        return self.bands


SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor("wv2", "WorldView-2", WV8, 11),
        Sensor("wv3", "WorldView-3", WV8, 11),
        Sensor("wv4", "WorldView-4", BGRN, 11),
        Sensor("qb", "QuickBird", BGRN, 11),
        Sensor("gf2", "GaoFen-2", BGRN, 10),
        Sensor("ikonos", "IKONOS", BGRN, 11),
        Sensor("ge1", "GeoEye-1", BGRN, 11),
        Sensor("pleiades", "Pleiades", BGRN, 12),
        Sensor("generic", "any sensor", BGRN, 11),
    )
}


def find_sensor(name: str) -> Sensor:
    """The sensor of that name, one of :data:`SENSORS`."""
    try:
        return SENSORS[name]
    except KeyError:
        known = ", ".join(SENSORS)
        raise SSDiffError(f"The sensor {name!r} is unknown; choose one of {known}.") from None
