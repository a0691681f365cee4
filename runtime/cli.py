"""The ``ssdiff-trt`` command."""

from __future__ import annotations

from typing import Any

import click

from runtime.console import (
    SETTINGS,
    integers,
    key_values,
    overwrite_option,
    quiet_option,
    run,
    sampler_option,
    timesteps_option,
    verbose_option,
)


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Pansharpen satellite images by diffusion."""


@cli.command("run")
@click.argument("pan")
@click.argument("ms")
@click.option("-o", "--output", help="Result; by default MS_pansharpened.tif, here.")
@click.option("--bundle", help="Bundle to use; by default the one that comes along and fits.")
@click.option(
    "-b",
    "--bands",
    callback=integers,
    metavar="N,N,...",
    help="Bands of MS, in the bundle's order; default all.",
)
@click.option("--pan-band", type=int, help="Band of PAN, if it has several.")
@click.option(
    "--full-scale", type=float, help="Digital number of full scale; by default from file or sensor."
)
@click.option("--pan-full-scale", type=float, help="That of PAN, if it differs.")
@click.option("--nodata", type=float, help="Value that means no data, whatever the files say.")
@click.option("--steps", type=int, help="Number of evenly spaced steps; default: the bundle's.")
@timesteps_option
@sampler_option
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option(
    "--tile-overlap",
    type=int,
    default=16,
    show_default=True,
    help="Pixels over which tiles fade into each other.",
)
@click.option("--batch", type=int, help="Tiles at a time; default: what suits the backend.")
@click.option(
    "--window", type=int, default=512, show_default=True, help="Pixels read at a time, on a side."
)
@click.option("--threads", type=int, help="Threads of the CPU; default: all cores.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="What runs the network.",
)
@click.option(
    "--dtype",
    type=click.Choice(
        ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
    ),
    help="Of the result; default: that of MS. Rounded and clipped, never wrapped.",
)
@click.option(
    "--driver",
    type=click.Choice(["GTiff", "COG"], case_sensitive=False),
    default="GTiff",
    show_default=True,
)
@click.option(
    "--co",
    "options",
    callback=key_values,
    multiple=True,
    metavar="KEY=VALUE",
    help="Creation option; repeat.",
)
@overwrite_option
@click.option("--quicklook", is_flag=True, help="Draw PAN, MS and result in a PNG beside it.")
@quiet_option
@verbose_option
def run_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Pansharpen PAN and MS, two rasters of the same place, MS with 4 times the pixel size."""
    from runtime.pansharpen import pansharpen
    from runtime.progress import choose

    pansharpen(progress=choose(quiet, verbose), **parameters)


@cli.command("info")
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest itself.")
def info_command(bundle: str, as_json: bool) -> None:
    """Check a bundle, a directory or the name of one that comes along, and describe it."""
    from runtime.bundle import open_bundle
    from runtime.info import describe

    opened = open_bundle(bundle)
    if as_json:
        click.echo(opened.manifest.model_dump_json(indent=2))
    else:
        describe(opened)


def main() -> None:
    """Entry point."""
    run(cli)
