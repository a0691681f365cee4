"""The ``ssdiff-ref`` command."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.options import (
    SETTINGS,
    input_options,
    output_options,
    overwrite_option,
    precision_option,
    run,
    shift_option,
    verbosity_options,
)
from ssdiff_trt.cli.train import COMMANDS
from ssdiff_trt.runtime.sensors import SENSORS

sensors = click.Choice(list(SENSORS))
sensor_option = click.option(
    "--sensor",
    type=sensors,
    default="generic",
    show_default=True,
    help="That took PAN and MS; its MTF is used.",
)


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Simulate, fuse and judge imagery by the protocols of the field; train weights for it."""


@cli.command("simulate")
@click.argument("pan")
@click.argument("ms")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="DIR",
    help="Where to write pan.tif, ms.tif and reference.tif.",
)
@sensor_option
@input_options
@overwrite_option
@verbosity_options
def simulate_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Degrade PAN and MS by Wald's protocol, with MS as the truth for what comes out."""
    from ssdiff_ref.protocol.wald import simulate
    from ssdiff_trt.runtime.progress import choose

    simulate(progress=choose(quiet, verbose), **parameters)


@cli.command("fuse")
@click.argument("pan")
@click.argument("ms")
@click.option("--method", required=True, help="Classical method, such as GSA, in any case.")
@click.option("-o", "--output", help="Result; default: MS_METHOD.tif, here.")
@sensor_option
@input_options
@output_options
@verbosity_options
def fuse_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Fuse PAN and MS by a classical method, into the same kind of file as ssdiff-trt run."""
    from ssdiff_ref.classical.fusion import fuse
    from ssdiff_trt.runtime.progress import choose

    fuse(progress=choose(quiet, verbose), **parameters)


@cli.command("evaluate")
@click.argument("inputs", nargs=-1, metavar="PAN MS | FILE.h5 | FILE.mat | FUSED...")
@click.option("--sensor", type=sensors, required=True, help="That took the imagery.")
@click.option("--reference", metavar="REF", help="Judge fused rasters by this one.")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    help="Bundle to judge, or default for the one that comes along and fits; repeat.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="Classical method to judge, in any case; repeat. Default: all but plain Brovey.",
)
@click.option(
    "--crop",
    type=int,
    default=21,
    show_default=True,
    help="Pixels at the edges that do not count at reduced resolution, as dim_cut.",
)
@input_options
@click.option("--full-scale", type=float, help="Of the data; default: of the file or the sensor.")
@click.option("--pan-full-scale", type=float, help="That of PAN, if it differs.")
@shift_option(
    "none",
    "PAN pixels by which MS lies off PAN, or auto to measure it: align them for all methods.",
)
@precision_option
@click.option("--json", metavar="FILE", help="Write mean scores and settings there.")
@click.option("--csv", metavar="FILE", help="Write the scores of every scene there.")
@click.option("--picture", metavar="FILE", help="Draw what the methods make of one place there.")
@overwrite_option
@verbosity_options
def evaluate_command(
    quiet: bool, verbose: bool, methods: tuple[str, ...], **parameters: Any
) -> None:
    """Judge bundles and classical methods on imagery, or fused rasters by a reference.

    \b
    PAN MS            degraded by Wald's protocol and judged by MS; then as they are
    FILE.h5 or .mat   of PanCollection or the DLPan-Toolbox
    FUSED...          with --reference: rasters on its grid
    """
    from ssdiff_ref.evaluation.evaluate import evaluate
    from ssdiff_ref.evaluation.report import print_tables
    from ssdiff_trt.runtime.progress import choose

    evaluation = evaluate(methods=methods or None, progress=choose(quiet, verbose), **parameters)
    if not quiet:
        print_tables(evaluation)


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Entry point."""
    run(cli)
