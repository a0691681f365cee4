"""STAC: the pair that an item has, and an item for the result (STAC 1.0 and 1.1)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import reading
from ssdiff_trt.runtime.sensors import BGRN, WV8

_PAN = {"pan", "panchromatic", "pnc"}
_NAMES = {"rededge": "red edge", "nir08": "nir1", "nir09": "nir2"}
"""Bands whose common names are not ours."""
_PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_EO = "https://stac-extensions.github.io/eo/v1.1.0/schema.json"
_LARGEST = 32 << 20
_TIMEOUT = 30.0
"""Bytes of an item, and seconds to wait for it."""


@dataclass(frozen=True)
class StacPair:
    """PAN and MS of an item."""

    item: Mapping[str, Any]
    pan: str
    """What GDAL opens."""
    ms: tuple[str, ...]
    """One file, or one for each band."""
    bands: tuple[int, ...] | None
    """Bands of MS in the order of the network, counted from 1; None if all are."""
    names: tuple[str, ...]
    """Common names of the bands of the result."""
    place: str
    """Of the item."""

    def result(self, output: Path) -> str:
        """An item for the result of a run, as JSON."""
        item = self.item
        common = [{"name": name, "common_name": name} for name in self.names]
        properties = {
            name: value for name, value in item["properties"].items() if ":" not in name
        } | {
            "processing:software": {"ssdiff-trt": version("ssdiff-trt")},
            "processing:lineage": "PAN and MS, fused by SSDiff (arXiv 2404.11537)",
        }
        content = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [_PROCESSING, _EO],
            "id": f"{item['id']}_{output.stem}",
            **{name: item.get(name) for name in ("geometry", "bbox") if name in item},
            "properties": properties,
            "links": [{"rel": "derived_from", "href": self.place, "type": "application/geo+json"}],
            "assets": {
                "pansharpened": {
                    "href": f"./{output.name}",
                    "type": "image/tiff; application=geotiff",
                    "roles": ["data"],
                    "eo:bands": common,
                }
            },
        }
        return json.dumps(content, indent=1)


def read_item(place: str) -> StacPair:
    """Find PAN and MS among the assets of an item, by roles and common names of bands.

    Args:
        place: file, or URL (http, https).

    Raises:
        InputError: if it cannot be read, is no item, or has not one PAN and one MS.
    """
    with reading(f"{place} cannot be read as a STAC item", "get it again", ValueError):
        item = json.loads(_content(place))
    if not (isinstance(item, dict) and item.get("type") == "Feature" and _has_assets(item)):
        raise InputError(f"{place} is no STAC item: it has no assets; give an item.")
    assets = {name: (asset, _bands(asset)) for name, asset in item["assets"].items()}
    pans = [name for name, (asset, bands) in assets.items() if _is_pan(name, asset, bands)]
    if len(pans) != 1:
        raise InputError(
            f"{place} has {', '.join(pans) or 'no asset'} with the panchromatic band, expected "
            "one; give the files instead."
        )
    files, order, names = _multispectral(place, assets)
    pan, *ms = (_resolved(place, assets[name][0]["href"]) for name in (pans[0], *files))
    return StacPair(item, pan, tuple(ms), order, names, place)


def _content(place: str) -> bytes:
    if re.match("https?://", place):
        from urllib.request import urlopen

        with urlopen(place, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read(_LARGEST)
        return content
    with open(place, "rb") as file:
        return file.read(_LARGEST)


def _has_assets(item: Mapping[str, Any]) -> bool:
    assets, properties = item.get("assets"), item.get("properties")
    if not (isinstance(assets, dict) and isinstance(properties, dict) and "id" in item):
        return False
    values = assets.values()
    return all(isinstance(asset, dict) and isinstance(asset.get("href"), str) for asset in values)


def _bands(asset: Mapping[str, Any]) -> list[str]:
    """Names of the bands of an asset, as this project has them; empty where none are stated."""
    stated = asset.get("bands") or asset.get("eo:bands")
    if not isinstance(stated, list):
        return []
    found = []
    for band in (each for each in stated if isinstance(each, dict)):
        common = band.get("eo:common_name") or band.get("common_name") or band.get("name")
        found.append(_NAMES.get(str(common), str(common)))
    return found


def _is_pan(name: str, asset: Mapping[str, Any], bands: Sequence[str]) -> bool:
    if bands:
        return list(bands) == ["pan"]
    return name.lower() in _PAN or not _PAN.isdisjoint(asset.get("roles") or ())


def _multispectral(
    place: str, assets: Mapping[str, tuple[Mapping[str, Any], list[str]]]
) -> tuple[list[str], tuple[int, ...] | None, tuple[str, ...]]:
    """Names of the assets of MS, the order of the bands, and their names."""
    for order in _orders():
        whole = [name for name, (_, bands) in assets.items() if set(order) <= set(bands)]
        if len(whole) > 1:
            raise InputError(
                f"{place} has the bands {', '.join(order)} in {', '.join(whole)}, expected one "
                "asset; give the files instead."
            )
        if whole:
            bands = assets[whole[0]][1]
            numbers = tuple(bands.index(name) + 1 for name in order)
            return whole, numbers, order
        single = {bands[0]: name for name, (_, bands) in assets.items() if len(bands) == 1}
        if set(order) <= set(single):
            return [single[name] for name in order], None, order
    raise InputError(
        f"{place} has no assets with the bands {', '.join(BGRN)}, by their common names; give the "
        "files instead."
    )


def _orders() -> Iterator[tuple[str, ...]]:
    """Bands that networks are made for, the most first; a WorldView may call nir1 nir."""
    yield WV8
    yield tuple("nir" if name == "nir1" else name for name in WV8)
    yield BGRN
    yield tuple("nir1" if name == "nir" else name for name in BGRN)


def _resolved(place: str, href: str) -> str:
    """An href as GDAL opens it."""
    if re.match("https?://", place):
        return urljoin(place, href)
    if re.match(r"[a-z0-9]+://|/vsi", href):
        return href
    return os.path.join(os.path.dirname(place), href)
