"""The ``ssdiff-calibrate`` command."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.options import (
    SETTINGS,
    input_options,
    loss_option,
    overwrite_option,
    ranges_option,
    run,
    sampling_options,
    shift_option,
    verbosity_options,
)


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Prepare INT8: samples of real trajectories, and what each group of layers costs."""


@cli.command("collect")
@click.argument("rasters", nargs=-1, required=True, metavar="PAN MS [PAN MS]...")
@click.option("-o", "--output", required=True, help="Samples to write, NAME.npz.")
@click.option("--bundle", help="Whose trajectories; default: the one that comes along and fits.")
@input_options
@click.option("--full-scale", type=float, help="Of the data; default: of the file or the sensor.")
@click.option("--pan-full-scale", type=float, help="That of PAN, if it differs.")
@shift_option("auto", "PAN pixels by which MS lies further than it says, as in ssdiff-trt run.")
@click.option("--sensor", help="Whose MTF makes the tiles to judge by; default: the bundle's.")
@sampling_options
@click.option("--tiles", type=int, default=64, show_default=True, help="To calibrate by, at most.")
@click.option("--judged", type=int, default=32, show_default=True, help="To judge by, at most.")
@click.option(
    "--megabytes", type=float, default=64, show_default=True, help="That the samples may take."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--picture/--no-picture", default=True, help="Draw the tiles in a PNG beside it.")
@overwrite_option
@verbosity_options
def collect_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Record what the network is given on real imagery, at every timestep of its trajectories.

    Tiles are chosen to differ from each other. Others, elsewhere on the ground, are kept to judge
    by. The more varied the scenes, the better.
    """
    from ssdiff_trt.calibration.collection import collect
    from ssdiff_trt.runtime.progress import choose

    collect(progress=choose(quiet, verbose), **parameters)


@cli.command("sensitivity")
@click.argument("samples")
@click.option("--bundle", help="To study; default: the one that the samples are of.")
@ranges_option
@loss_option
@click.option("--json", metavar="FILE", help="Write ranges, costs and plan there.")
@click.option("--picture", metavar="FILE", help="Draw them there.")
@overwrite_option
@verbosity_options
def sensitivity_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Quantise one group of layers at a time, rank them by what it costs, and choose a plan.

    ssdiff-export --int8 does the same, and holds the plan to tiles that were kept apart.
    """
    from ssdiff_trt.calibration.report import print_study, study_bundle
    from ssdiff_trt.runtime.progress import choose

    study = study_bundle(progress=choose(quiet, verbose), **parameters)
    if not quiet:
        print_study(study)


def main() -> None:
    """Entry point."""
    run(cli)
