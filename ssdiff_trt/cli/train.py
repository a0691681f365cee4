"""The commands of ``ssdiff-ref`` that train."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.main import progress_for
from ssdiff_trt.cli.options import (
    FILE,
    FOLDER,
    WeightsName,
    bundle_option,
    examples,
    one_option,
    overwrite_option,
    pair_options,
    sensor_option,
    together,
    verbosity_options,
    weights_key_option,
)
from ssdiff_trt.cli.process import limit_threads
from ssdiff_trt.runtime.options import ExecutionOptions

data_option = click.option(
    "--data",
    type=FOLDER,
    default=".",
    show_default=True,
    metavar="DIR",
    help="Folder that paths in CONFIG are relative to.",
)
run_options = together(
    click.option(
        "-o",
        "--output",
        type=FOLDER,
        required=True,
        metavar="DIR",
        help="Folder of the training run.",
    ),
    data_option,
    click.option("--packed", type=FILE, metavar="FILE", help="Imagery packed by ssdiff-ref pack."),
    weights_key_option,
    click.option(
        "--minutes",
        type=float,
        metavar="MIN",
        help="Stop after this many minutes; the same command resumes.",
    ),
    click.option(
        "--device",
        metavar="NAME",
        help="cpu, cuda, or the number of a GPU, counted from 0; default: the first GPU.",
    ),
    one_option(ExecutionOptions, "threads"),
    verbosity_options,
)


@click.command(
    "train",
    epilog=examples(
        "ssdiff-ref train recipe.toml --data imagery/ -o run/ --minutes 60",
        "ssdiff-ref train recipe.toml --packed packed.npz -o run/ --device cuda",
    ),
)
@click.argument("config", type=FILE)
@run_options
def train_command(quiet: bool, verbose: bool, threads: int | None, **parameters: Any) -> None:
    """Train weights as CONFIG (TOML) states, or resume an interrupted training.

    The folder receives best.safetensors and last.safetensors, losses.csv, validation.csv and
    curves.png, and state.pt to resume from.
    """
    limit_threads(threads)
    from ssdiff_ref.training.run import train

    train(progress=progress_for(quiet, verbose), **parameters)


@click.command(
    "finetune",
    epilog=examples("ssdiff-ref finetune recipe.toml --weights run/best.safetensors -o lbaf/"),
)
@click.argument("config", type=FILE)
@click.option(
    "--weights",
    type=WeightsName(),
    required=True,
    help="Weights to start from, .safetensors or PyTorch; or a bundle, also by name.",
)
@click.option(
    "--period",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Iterations after which training changes to the other branch.",
)
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=30_000,
    show_default=True,
    help="Total number of iterations.",
)
@click.option("--learning-rate", type=float, default=1e-4, show_default=True, help="Learning rate.")
@run_options
def finetune_command(quiet: bool, verbose: bool, threads: int | None, **parameters: Any) -> None:
    """Fine-tune converged weights branch by branch (L-BAF), on the data of CONFIG."""
    limit_threads(threads)
    from ssdiff_ref.training.run import finetune

    finetune(progress=progress_for(quiet, verbose), **parameters)


@click.command("pack", epilog=examples("ssdiff-ref pack recipe.toml --data imagery/ -o packed.npz"))
@click.argument("config", type=FILE)
@click.option(
    "-o", "--output", type=FILE, required=True, metavar="FILE", help="File to write, .npz."
)
@data_option
@overwrite_option
@verbosity_options
def pack_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Pack the imagery of CONFIG into one file, to train on another machine."""
    from ssdiff_ref.training.run import pack_imagery

    target = pack_imagery(**parameters)
    progress_for(quiet, verbose).note(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")


@click.command(
    "adapt",
    epilog=examples(
        "ssdiff-ref adapt pan.tif ms.tif -o mine.ssdiff",
        "ssdiff-ref adapt pan.tif ms.tif --sensor ge1 --minutes 20 -o mine.ssdiff",
        "ssdiff-ref adapt pan.tif ms.tif --also pan2.tif ms2.tif -o mine.ssdiff",
        "ssdiff-ref adapt --scenes scenes.csv -o mine.ssdiff",
    ),
)
@click.argument("pan", type=FILE, required=False)
@click.argument("ms", type=FILE, required=False)
@click.option(
    "--also",
    type=(FILE, FILE),
    multiple=True,
    metavar="PAN MS",
    help="Another scene of the same sensor; repeat.",
)
@click.option(
    "--scenes",
    type=FILE,
    metavar="TABLE.csv",
    help="In place of PAN and MS, the scenes of a table, as for ssdiff-trt run.",
)
@click.option(
    "-o", "--output", type=FOLDER, required=True, metavar="BUNDLE", help="Bundle to write."
)
@bundle_option("Bundle to start from; default: the shipped one that fits the number of bands.")
@sensor_option
@pair_options
@click.option(
    "--minutes",
    type=float,
    default=8,
    show_default=True,
    metavar="MIN",
    help="Maximum time in minutes, export included.",
)
@click.option(
    "--part",
    type=click.Choice(["all", "head"]),
    default="all",
    show_default=True,
    help="Weights that are trained: all, or those of the last layers only.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@one_option(ExecutionOptions, "threads")
@overwrite_option
@verbosity_options
def adapt_command(
    pan: str | None,
    ms: str | None,
    also: tuple[tuple[str, str], ...],
    scenes: str | None,
    quiet: bool,
    verbose: bool,
    threads: int | None,
    **parameters: Any,
) -> int:
    """Adapt weights to scenes of one sensor; the exit status is 1 if they are not better there.

    They are trained on the scenes at a quarter of their resolution and at full resolution, and
    measured at both on blocks that are held out. A bundle is written only if the
    measures at reduced resolution are better and none at full resolution is worse beyond a
    tolerance.
    """
    from ssdiff_trt.cli.adaptation import scenes_to_adapt

    entries = scenes_to_adapt(pan, ms, also, scenes)
    limit_threads(threads)
    from ssdiff_trt.export.adaptation import adapt

    done = adapt(entries, progress=progress_for(quiet, verbose), **parameters)
    return 0 if done else 1


COMMANDS = (train_command, finetune_command, pack_command, adapt_command)
