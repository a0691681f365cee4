"""The ``ssdiff-export`` command."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.options import (
    SETTINGS,
    loss_option,
    overwrite_option,
    ranges_option,
    run,
    sampling_options,
    verbosity_options,
)
from ssdiff_trt.runtime.sensors import SENSORS


@click.command(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
@click.option(
    "--weights", help="Checkpoint, .safetensors or .pt; or a bundle, also by the name of one."
)
@click.option(
    "--sensor", type=click.Choice(list(SENSORS)), help="What they are for; default: the bundle's."
)
@click.option("-o", "--output", help="Bundle to make, NAME.ssdiff.")
@click.option("--fp16", is_flag=True, help="Also graphs in FP16, with FP32 where it matters.")
@click.option("--bf16", is_flag=True, help="Also graphs in BF16, likewise.")
@click.option("--int8", is_flag=True, help="Also graphs in INT8, if they pass; needs samples.")
@click.option(
    "--calibration", metavar="FILE", help="Samples for --int8, by ssdiff-calibrate collect."
)
@ranges_option
@loss_option
@click.option(
    "--engine",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx", "none"]),
    default="auto",
    show_default=True,
    help="Also build engines; auto: if there is a GPU and a TensorRT.",
)
@click.option(
    "--gpu",
    "gpus",
    metavar="SM,SM,...",
    help="Compute capabilities to build for, such as sm86,sm89; with --engine tensorrt-rtx, which "
    "needs no GPU here.",
)
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
    """Export SSDiff weights as a bundle for ssdiff-trt, and prove that it computes the same.

    Without --weights, the bundles that come along are made anew, with the precisions asked for,
    where ssdiff-trt run finds them.
    """
    from ssdiff_trt.export.command import export
    from ssdiff_trt.runtime.progress import choose

    for bundle in export(progress=choose(quiet, verbose), **parameters):
        if not quiet:
            from ssdiff_trt.cli.info import describe

            describe(bundle)


def main() -> None:
    """Entry point."""
    run(cli)
