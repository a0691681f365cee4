"""The ``ssdiff-export`` command."""

from __future__ import annotations

from typing import Any

import click

from runtime.console import (
    SETTINGS,
    overwrite_option,
    run,
    sampling_options,
    verbosity_options,
)
from runtime.sensors import SENSORS


@click.command(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
@click.option("--weights", required=True, help="Checkpoint, .safetensors or .pt.")
@click.option(
    "--sensor", type=click.Choice(list(SENSORS)), required=True, help="What it is trained for."
)
@click.option("-o", "--output", required=True, help="Bundle to make, NAME.ssdiff.")
@click.option(
    "--tile", type=int, default=64, show_default=True, help="Pixels of a tile, a multiple of 16."
)
@click.option("--full-scale", type=float, help="Digital number of full scale, if not the sensor's.")
@sampling_options
@click.option("--training-data", help="What the weights were trained on, for the manifest.")
@click.option("--licence", help="Of the weights, for the manifest.")
@overwrite_option
@verbosity_options
def cli(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Export SSDiff weights as a bundle for ssdiff-trt, and prove that it computes the same."""
    from export.bundle import export_bundle
    from runtime.progress import choose

    given = {name: value for name, value in parameters.items() if value is not None}
    bundle = export_bundle(progress=choose(quiet, verbose), **given)
    if not quiet:
        from runtime.info import describe

        describe(bundle)


def main() -> None:
    """Entry point."""
    run(cli)
