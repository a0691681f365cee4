"""The ``ssdiff-export`` command."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.main import progress_for, run
from ssdiff_trt.cli.options import (
    FILE,
    FOLDER,
    SETTINGS,
    WeightsName,
    check_json,
    examples,
    json_option,
    loss_option,
    one_option,
    overwrite_option,
    ranges_option,
    verbosity_options,
    weights_key_option,
    write_json,
)
from ssdiff_trt.cli.process import limit_threads, process
from ssdiff_trt.runtime.options import ExecutionOptions, SamplingOptions
from ssdiff_trt.runtime.sensors import SENSORS


@click.command(
    context_settings=SETTINGS,
    epilog=examples(
        "ssdiff-export --fp16",
        "ssdiff-export --weights mine.safetensors --sensor wv3 -o mine.ssdiff",
        "ssdiff-export --int8 --calibration samples.npz",
        "ssdiff-export --fp16 --engine tensorrt-rtx --gpu sm86,sm89",
    ),
)
@click.version_option(package_name="ssdiff-trt")
@click.option(
    "--weights",
    type=WeightsName(),
    help="Checkpoint of SSDiff, .safetensors or PyTorch, with the layer widths of the authors' "
    "code (dim 32, dim_head 16); the number of bands is read from the file. Or a bundle, by folder "
    "or name.",
)
@weights_key_option
@click.option(
    "--sensor",
    type=click.Choice(list(SENSORS)),
    help="Sensor that the weights are for; default: the bundle's.",
)
@click.option("-o", "--output", type=FOLDER, metavar="BUNDLE", help="Bundle to write, NAME.ssdiff.")
@click.option("--fp16", is_flag=True, help="Also graphs in FP16, with FP32 where it is needed.")
@click.option("--bf16", is_flag=True, help="Also graphs in BF16, with FP32 where it is needed.")
@click.option(
    "--int8",
    is_flag=True,
    help="Also graphs in INT8, if they lose no more than --max-ergas-loss; needs --calibration.",
)
@click.option(
    "--calibration",
    type=FILE,
    metavar="FILE",
    help="Samples for --int8, from ssdiff-calibrate collect.",
)
@ranges_option
@loss_option
@click.option(
    "--engine",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx", "none"]),
    default="auto",
    show_default=True,
    help="Engines to build; auto: for the GPU here, if there is one and TensorRT is installed.",
)
@click.option(
    "--gpu",
    "gpus",
    metavar="SM,SM,...",
    help="Compute capabilities to build for, such as sm86,sm89; with --engine tensorrt-rtx, which "
    "needs no GPU here.",
)
@click.option(
    "--tile",
    type=int,
    help="Pixels of a tile, a multiple of 16; default: the bundle's, or 64.",
)
@click.option(
    "--full-scale",
    type=float,
    metavar="DN",
    help="Digital number of full scale; default: the sensor's.",
)
@one_option(SamplingOptions, "sampler", "Default sampler of the bundle; default: consistent.")
@one_option(SamplingOptions, "timesteps", "Default timesteps of the bundle, such as 999,68.")
@one_option(
    SamplingOptions, "back_projection", "Default back-projection of the bundle; default: 0."
)
@click.option("--training-data", help="Training data of the weights, for the manifest.")
@click.option("--licence", help="Licence of the weights, for the manifest.")
@click.option("--attribution", help="Credits that the training data ask for, for the manifest.")
@one_option(ExecutionOptions, "device")
@one_option(ExecutionOptions, "threads")
@json_option
@overwrite_option
@verbosity_options
def cli(
    quiet: bool, verbose: bool, json: str | None, threads: int | None, **parameters: Any
) -> None:
    """Export SSDiff weights as a bundle, and check that its graphs compute what PyTorch computes.

    Without --weights, the shipped bundles are exported again with the precisions that the options
    name, into a folder in which ssdiff-trt run finds them. --json writes a list of manifests.
    """
    limit_threads(threads)
    inputs = parameters["weights"], parameters["calibration"]
    check_json(json, parameters["overwrite"], *inputs)
    from ssdiff_trt.cli.info import describe
    from ssdiff_trt.export.command import export

    manifests = []
    for bundle in export(progress=progress_for(quiet, verbose), **parameters):
        manifests.append(bundle.manifest.model_dump_json(indent=2))
        if not quiet and json != "-":
            describe(bundle)
    write_json(f"[{','.join(manifests)}]", json)


def main() -> None:
    """Entry point."""
    with process():
        run(cli, "ssdiff-export")
