"""The ``ssdiff-ref`` command."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_ref.classical import NAMES
from ssdiff_trt.cli.main import progress_for, run
from ssdiff_trt.cli.options import (
    FILE,
    FOLDER,
    SETTINGS,
    BundleName,
    examples,
    group_options,
    json_option,
    one_option,
    output_options,
    overwrite_option,
    pair_arguments,
    sensor_option,
    verbosity_options,
    write_json,
)
from ssdiff_trt.cli.process import process
from ssdiff_trt.cli.train import COMMANDS
from ssdiff_trt.runtime.options import ExecutionOptions, PairOptions, ReadOptions
from ssdiff_trt.runtime.sensors import SENSORS

BANDS = (
    "Bands of MS, by number (from 1) or name, in the order of the result; default: all but alpha."
)


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Simulate degraded pairs, fuse by classical methods, evaluate results, train weights."""


@cli.command(
    "simulate",
    epilog=examples("ssdiff-ref simulate pan.tif ms.tif --sensor ge1 -o reduced/"),
)
@pair_arguments
@click.option(
    "-o",
    "--output",
    type=FOLDER,
    required=True,
    metavar="DIR",
    help="Folder to write pan.tif, ms.tif and reference.tif to.",
)
@sensor_option
@group_options(ReadOptions, bands=BANDS)
@overwrite_option
@verbosity_options
def simulate_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Degrade PAN and MS by Wald's protocol, with MS as the reference for fused results."""
    from ssdiff_ref.protocol.wald import simulate

    simulate(progress=progress_for(quiet, verbose), **parameters)


@cli.command(
    "fuse",
    epilog=examples(
        "ssdiff-ref fuse pan.tif ms.tif --method gsa",
        "ssdiff-ref fuse pan.tif ms.tif --method mtf-glp-fs --sensor wv2 -o fused.tif",
    ),
)
@pair_arguments
@click.option(
    "--method",
    type=click.Choice(NAMES, case_sensitive=False),
    required=True,
    help="Classical method, in any case; EXP is interpolation.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="GeoTIFF to write; default: MS_METHOD.tif in the current directory.",
)
@sensor_option
@group_options(ReadOptions, bands=BANDS)
@one_option(PairOptions, "shift", default="none")
@output_options
@verbosity_options
def fuse_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Fuse PAN and MS by a classical method, into the same kind of file as ssdiff-trt run."""
    from ssdiff_ref.classical.fusion import fuse

    fuse(progress=progress_for(quiet, verbose), **parameters)


@cli.command(
    "evaluate",
    epilog=examples(
        "ssdiff-ref evaluate pan.tif ms.tif --sensor ge1 --bundle default --json scores.json",
        "ssdiff-ref evaluate test_qb_multiExm1.h5 --sensor qb --bundle mine.ssdiff",
        "ssdiff-ref evaluate fused.tif --reference truth.tif --sensor ge1",
    ),
)
@click.argument("inputs", nargs=-1, type=FILE, metavar="PAN MS | FILE.h5 | FILE.mat | FUSED...")
@click.option(
    "--sensor",
    type=click.Choice(list(SENSORS)),
    required=True,
    help="Sensor that acquired the imagery; its MTF is used.",
)
@click.option(
    "--reference", type=FILE, metavar="REF", help="Compare fused rasters with this raster."
)
@click.option(
    "--bundle",
    "bundles",
    type=BundleName("default"),
    multiple=True,
    help="Bundle to evaluate; default stands for the shipped one that fits the bands; repeat.",
)
@click.option(
    "--method",
    "methods",
    type=click.Choice(NAMES, case_sensitive=False),
    multiple=True,
    metavar="NAME",
    help="Classical method to evaluate, one of those of fuse, in any case; repeat. Default: all "
    "but plain Brovey.",
)
@click.option(
    "--crop",
    type=int,
    default=21,
    show_default=True,
    metavar="N",
    help="Pixels at the edges that are left out at reduced resolution, the DLPan-Toolbox's "
    "dim_cut.",
)
@group_options(PairOptions, without=("shift",))
@one_option(
    PairOptions,
    "shift",
    "Shift of MS, in rows and columns of PAN, or auto to measure it: all methods then get an "
    "aligned pair. With none, only bundles correct the shift that they measure, at reduced "
    "resolution.",
    default="none",
)
@one_option(ExecutionOptions, "precision")
@one_option(ExecutionOptions, "device")
@one_option(ExecutionOptions, "threads")
@one_option(ExecutionOptions, "trust_engines")
@json_option
@click.option(
    "--csv", type=FILE, metavar="FILE", help="Also write the scores of each scene to this file."
)
@click.option(
    "--picture",
    type=FILE,
    metavar="FILE",
    help="Also draw the results of all methods at one place in this file.",
)
@overwrite_option
@verbosity_options
def evaluate_command(
    quiet: bool, verbose: bool, methods: tuple[str, ...], json: str | None, **parameters: Any
) -> None:
    """Evaluate bundles and classical methods on imagery, or fused rasters against a reference.

    \b
    PAN MS            degraded by Wald's protocol and compared with MS; then as they are
    FILE.h5 or .mat   of PanCollection or the DLPan-Toolbox
    FUSED...          with --reference: rasters on its grid
    """
    from ssdiff_ref.evaluation.evaluate import evaluate
    from ssdiff_ref.evaluation.report import as_json, print_tables

    evaluation = evaluate(
        methods=methods or None,
        json=None if json == "-" else json,
        progress=progress_for(quiet, verbose),
        **parameters,
    )
    if json == "-":
        write_json(as_json(evaluation), json)
    elif not quiet or not (json or parameters["csv"]):  # scores are printed unless a file has them
        print_tables(evaluation)


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Entry point."""
    with process():
        run(cli, "ssdiff-ref")
