"""The commands of ``ssdiff-ref`` that train."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.options import (
    input_options,
    overwrite_option,
    shift_option,
    together,
    verbosity_options,
)
from ssdiff_trt.runtime.sensors import SENSORS

run_options = together(
    click.option("-o", "--output", required=True, metavar="DIR", help="Folder of the run."),
    click.option(
        "--data",
        default=".",
        show_default=True,
        metavar="DIR",
        help="Folder that paths in CONFIG start from.",
    ),
    click.option("--packed", metavar="FILE", help="Imagery packed by ssdiff-ref pack."),
    click.option("--minutes", type=float, help="Stop after that long; the same call goes on."),
    click.option("--device", help="Such as cpu or cuda; default: CUDA where there is one."),
    verbosity_options,
)


@click.command("train")
@click.argument("config")
@run_options
def train_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Train weights as CONFIG says (TOML), or go on where a run stopped.

    The folder gets best.safetensors and last.safetensors, losses.csv, validation.csv and
    curves.png, and state.pt to go on from.
    """
    from ssdiff_ref.training.run import train
    from ssdiff_trt.runtime.progress import choose

    train(progress=choose(quiet, verbose), **parameters)


@click.command("finetune")
@click.argument("config")
@click.option("--weights", required=True, metavar="FILE", help="Weights or bundle to start from.")
@click.option(
    "--period",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Iterations after which the other branch learns.",
)
@click.option(
    "--iterations", type=click.IntRange(min=1), default=30_000, show_default=True, help="In all."
)
@click.option("--learning-rate", type=float, default=1e-4, show_default=True)
@run_options
def finetune_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Fine-tune converged weights branch by branch (L-BAF), on the data of CONFIG."""
    from ssdiff_ref.training.run import finetune
    from ssdiff_trt.runtime.progress import choose

    finetune(progress=choose(quiet, verbose), **parameters)


@click.command("pack")
@click.argument("config")
@click.option("-o", "--output", required=True, metavar="FILE", help="File to write, .npz.")
@click.option("--data", default=".", show_default=True, metavar="DIR", help="As in train.")
@overwrite_option
@verbosity_options
def pack_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Pack the imagery of CONFIG into one file, to train where nothing else is at hand."""
    from ssdiff_ref.training.run import pack_imagery
    from ssdiff_trt.runtime.progress import choose

    target = pack_imagery(**parameters)
    choose(quiet, verbose).note(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")


@click.command("adapt")
@click.argument("pan")
@click.argument("ms")
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Bundle to write.")
@click.option("--bundle", help="To start from; default: the one that comes along and fits.")
@click.option(
    "--sensor",
    type=click.Choice(list(SENSORS)),
    default="generic",
    show_default=True,
    help="That took PAN and MS; its MTF is used.",
)
@input_options
@click.option("--full-scale", type=float, help="Of the data; default: of the file or the bundle.")
@click.option("--pan-full-scale", type=float, help="That of PAN, if it differs.")
@shift_option("auto", "PAN pixels by which MS lies off PAN; auto measures it.")
@click.option("--minutes", type=float, default=8, show_default=True, help="To train for at most.")
@click.option("--seed", type=int, default=0, show_default=True)
@overwrite_option
@verbosity_options
def adapt_command(quiet: bool, verbose: bool, **parameters: Any) -> int:
    """Adapt weights to one scene; exits with 1 if the old ones are no worse.

    They are trained on the scene at a quarter of its resolution and judged on blocks of it that
    were kept apart.
    """
    from ssdiff_trt.export.adaptation import adapt
    from ssdiff_trt.runtime.progress import choose

    return 0 if adapt(progress=choose(quiet, verbose), **parameters) else 1


COMMANDS = (train_command, finetune_command, pack_command, adapt_command)
