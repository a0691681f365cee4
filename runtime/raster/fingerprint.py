"""Fingerprints: whether rasters are still the same, without reading their pixels."""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from rasterio.io import DatasetReader

from ssdiff_trt.runtime.raster.gdal import READ_ERRORS, few_requests, open_dataset

_URL = re.compile(r"(?:/vsicurl/)?(https?://.*)")
_VIRTUAL = b"<VRTDataset"
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
        if not (files := list(dataset_files(dataset))):
            return None
        for file in files:
            if (state := _state(file)) is None:
                return None
            lines.append(f"{file}\n{state}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def dataset_files(dataset: DatasetReader) -> Iterator[str]:
    """Every file that a dataset consists of, those of its sources (VRT) included.

    Files inside others, such as those of archives, have the names that GDAL gives them. A file is
    opened only after its name was given.
    """
    found: set[str] = set()
    waiting = deque(_listed(dataset))
    while waiting:
        file = waiting.popleft()
        if file in found:
            continue
        found.add(file)
        yield file
        if not _is_virtual(file):
            continue
        try:
            with open_dataset(file) as source:
                waiting.extend(_listed(source))
        except READ_ERRORS:
            pass  # a part that is no dataset by itself has no further files


def _listed(dataset: DatasetReader) -> Iterator[str]:
    """GDAL's list of files, without the folder that it puts before absolute names of raw bands."""
    with few_requests(dataset.name):
        files = dataset.files
    for file in files:
        absolute = file[file.rfind("//") + 1 :]
        yield absolute if not os.path.exists(file) and os.path.exists(absolute) else file


def every_file(*rasters: DatasetReader | str | Path) -> list[str]:
    """Every file on a disk that rasters consist of, whatever names they are given by.

    Args:
        rasters: open datasets, or paths and names of datasets; what is no raster counts as it is.
    """
    files: list[str] = []
    for raster in rasters:
        if isinstance(raster, DatasetReader):
            files += dataset_files(raster)
            continue
        files.append(str(raster))
        try:
            with open_dataset(raster) as dataset:
                files += dataset_files(dataset)
        except READ_ERRORS:
            pass
    return list(dict.fromkeys(map(_on_disk, files)))


def _is_virtual(file: str) -> bool:
    """Whether a file is a virtual dataset, made of others."""
    if not os.path.isfile(file):  # one inside another, or a pipe, which is not waited for
        return file.lower().endswith(".vrt") and not os.path.exists(file)
    try:
        with open(file, "rb") as opened:
            return _VIRTUAL in opened.read(1024)
    except OSError:
        return False


def _on_disk(file: str) -> str:
    """The file on a disk that a path of GDAL's virtual file systems leads into.

    The paths nest, and each system has its own way to write what it leads into: the first part
    that is a file is taken.
    """
    if not file.startswith("/vsi"):
        return file
    for place in re.finditer("[/,={]", file[1:]):
        inside = file[place.end() + 1 :]
        for candidate in (inside, *map(str, Path(inside).parents), inside.partition("}")[0]):
            if os.path.isfile(candidate):
                return candidate
    return file


def _state(file: str) -> str | None:
    """What changes when the content of a file does."""
    if url := _URL.fullmatch(file):
        return _url_state(url[1])
    try:
        status = os.stat(_on_disk(file))
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns}"


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
