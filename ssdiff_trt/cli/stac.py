"""STAC items on the command line."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.options import check_json
from ssdiff_trt.runtime.files import with_suffix
from ssdiff_trt.runtime.raster.stac import StacPair, read_item
from ssdiff_trt.runtime.uploads import is_url


def pair_of(
    place: str, output: str | None, ms: object, options: dict[str, Any]
) -> tuple[StacPair, str]:
    """The pair of an item, with its bands among the options, and the file of the result's item."""
    if ms:
        raise click.UsageError("--stac has MS too; leave MS out.")
    if output is None or is_url(output):
        raise click.UsageError("--stac needs -o with a file for the result.")
    beside = str(with_suffix(output, ".json"))
    check_json(beside, options["overwrite"], output)
    pair = read_item(place)
    if options["bands"] is None:
        options["bands"] = pair.bands
    return pair, beside
