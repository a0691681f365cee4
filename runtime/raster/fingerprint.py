"""Fingerprints: whether rasters are still the same, without reading their pixels."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import rasterio
from rasterio.io import DatasetReader

from ssdiff_trt.runtime.raster.gdal import GDAL_ERRORS, without_georeferencing_warnings

_URL = re.compile(r"(?:/vsicurl/)?(https?://.*)")
_ARCHIVE = re.compile(r"/vsi(?:zip|tar|gzip|7z|rar)/(?:\{(?P<braced>[^}]*)\}|(?P<path>.*))")
_ARCHIVE_SUFFIXES = (".zip", ".kmz", ".tar", ".tgz", ".tar.gz", ".gz", ".7z", ".rar")
_TIMEOUT = 10.0
"""Seconds to wait for the headers of a URL."""


def fingerprint(*datasets: DatasetReader) -> str | None:
    """A digest of size and modification time (ns) of every file that the datasets consist of.

    A URL counts by its ETag, or by its Last-Modified and Content-Length.

    Returns:
        Hex digest; None where something has neither, such as a file in memory or a database.
    """
    lines = []
    for dataset in datasets:
        if not (files := dataset_files(dataset)):
            return None
        for file in files:
            if (state := _state(file)) is None:
                return None
            lines.append(f"{file}\n{state}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def dataset_files(dataset: DatasetReader) -> list[str]:
    """Every file that a dataset consists of, those of its sources (VRT) included."""
    found: dict[str, None] = {}
    waiting = list(dataset.files)
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found[file] = None
        if not file.lower().endswith(".vrt"):
            continue
        try:
            with without_georeferencing_warnings(), rasterio.open(file) as source:
                waiting.extend(source.files)
        except GDAL_ERRORS:
            pass  # a part that is no dataset by itself has no further files
    return list(found)


def _state(file: str) -> str | None:
    """What changes when the content of a file does."""
    if url := _URL.fullmatch(file):
        return _url_state(url[1])
    if archive := _ARCHIVE.fullmatch(file):
        file = archive["braced"] or _archive_path(archive["path"])
    try:
        status = os.stat(file)
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns}"


def _archive_path(inside: str) -> str:
    """The archive itself of a path that leads into it."""
    path = Path(inside)
    for candidate in (path, *path.parents):
        if candidate.name.lower().endswith(_ARCHIVE_SUFFIXES):
            return str(candidate)
    return inside


def _url_state(url: str) -> str | None:
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    if urlsplit(url).scheme not in ("http", "https"):
        return None
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_TIMEOUT) as answer:
            headers = answer.headers
    except (URLError, OSError, ValueError):
        return None
    if etag := headers.get("ETag"):
        return str(etag)
    modified, length = headers.get("Last-Modified"), headers.get("Content-Length")
    return f"{modified} {length}" if modified and length else None
