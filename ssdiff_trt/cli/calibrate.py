"""The ``ssdiff-calibrate`` command."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.main import progress_for, run
from ssdiff_trt.cli.options import (
    FILE,
    SETTINGS,
    bundle_option,
    examples,
    json_option,
    loss_option,
    one_option,
    overwrite_option,
    pair_options,
    ranges_option,
    verbosity_options,
    write_json,
)
from ssdiff_trt.cli.process import limit_threads, process
from ssdiff_trt.runtime.options import ExecutionOptions, SamplingOptions
from ssdiff_trt.runtime.sensors import SENSORS


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Prepare INT8: samples of real trajectories, and the loss that each group of layers causes."""


@cli.command(
    "collect",
    epilog=examples(
        "ssdiff-calibrate collect pan.tif ms.tif -o samples.npz",
        "ssdiff-calibrate collect pan1.tif ms1.tif pan2.tif ms2.tif -o samples.npz --tiles 128",
    ),
)
@click.argument("rasters", type=FILE, nargs=-1, required=True, metavar="PAN MS [PAN MS]...")
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="FILE", help="Samples to write, NAME.npz."
)
@bundle_option("Bundle whose trajectories are recorded; default: the shipped one that fits.")
@pair_options
@click.option(
    "--sensor",
    type=click.Choice(list(SENSORS)),
    help="Sensor whose MTF degrades the held-out tiles; default: the bundle's.",
)
@one_option(SamplingOptions, "sampler")
@one_option(SamplingOptions, "timesteps")
@click.option(
    "--tiles",
    type=int,
    default=64,
    show_default=True,
    help="Largest number of tiles to calibrate with.",
)
@click.option(
    "--judged",
    type=int,
    default=32,
    show_default=True,
    help="Largest number of held-out tiles to evaluate with.",
)
@click.option(
    "--megabytes",
    type=float,
    default=64,
    show_default=True,
    help="Largest size of the samples in MB.",
)
@one_option(SamplingOptions, "seed")
@one_option(ExecutionOptions, "threads")
@one_option(ExecutionOptions, "trust_engines")
@click.option(
    "--picture/--no-picture", default=True, help="Draw the tiles in a PNG beside the samples."
)
@overwrite_option
@verbosity_options
def collect_command(quiet: bool, verbose: bool, threads: int | None, **parameters: Any) -> None:
    """Record the network's inputs on real imagery, at every timestep of its trajectories.

    Tiles are chosen to differ from each other. Others, elsewhere in the scene, are held out for
    evaluation. The more varied the scenes, the better.
    """
    limit_threads(threads)
    from ssdiff_trt.calibration.collection import collect

    collect(progress=progress_for(quiet, verbose), **parameters)


@cli.command(
    "sensitivity", epilog=examples("ssdiff-calibrate sensitivity samples.npz --picture ranks.png")
)
@click.argument("samples", type=FILE)
@bundle_option("Bundle to study; default: the one that the samples were recorded with.")
@ranges_option
@loss_option
@json_option
@click.option(
    "--picture", type=FILE, metavar="FILE", help="Also draw ranges and losses in this file."
)
@one_option(ExecutionOptions, "threads")
@overwrite_option
@verbosity_options
def sensitivity_command(
    quiet: bool, verbose: bool, json: str | None, threads: int | None, **parameters: Any
) -> None:
    """Quantise one group of layers at a time, rank them by the loss, and choose a plan.

    ssdiff-export --int8 does the same, and checks the plan on held-out tiles.
    """
    limit_threads(threads)
    from ssdiff_trt.calibration.report import print_study, study_bundle

    study = study_bundle(
        json=None if json == "-" else json, progress=progress_for(quiet, verbose), **parameters
    )
    if json == "-":
        write_json(study.model_dump_json(indent=1), json)
    elif not quiet:
        print_study(study)


def main() -> None:
    """Entry point."""
    with process():
        run(cli, "ssdiff-calibrate")
