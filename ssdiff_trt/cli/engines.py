"""The ``ssdiff-trt build`` and ``contract`` commands."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.main import progress_for
from ssdiff_trt.cli.options import (
    FILE,
    BundleName,
    check_json,
    examples,
    one_option,
    overwrite_option,
    verbosity_options,
    write_json,
)
from ssdiff_trt.runtime.arguments import positive
from ssdiff_trt.runtime.options import PRECISIONS, ExecutionOptions, Precision


@click.command(
    "build",
    epilog=examples(
        "ssdiff-trt build --precision fp16",
        "ssdiff-trt build generic8 --precision fp16 --batch 16",
        "ssdiff-trt build --backend tensorrt-rtx --gpu sm86 --engine-file step.plan",
    ),
)
@click.argument("bundle", type=BundleName(), default="generic4")
@click.option(
    "--backend",
    "flavour",
    type=click.Choice(("auto", "tensorrt", "tensorrt-rtx")),
    default="auto",
    show_default=True,
    help="Kind of TensorRT; auto: the one that is installed.",
)
@one_option(
    ExecutionOptions, "precision", "Precision of the network; auto: fp16 if the bundle has it."
)
@one_option(
    ExecutionOptions,
    "batch",
    "Largest number of tiles that are computed at a time, rounded up to a power of two; default: "
    "what suits precision and GPU.",
)
@one_option(ExecutionOptions, "device")
@click.option(
    "--gpu",
    metavar="SM",
    help="Compute capability to build for, such as sm86, in place of that of a GPU of this "
    "machine; for TensorRT-RTX.",
)
@click.option(
    "--engine-file",
    "output",
    type=FILE,
    metavar="FILE",
    help="Also write the engine to a file, for another program, and beside it a .json that "
    "describes it (docs/integration.md).",
)
@overwrite_option
@verbosity_options
def build_command(bundle: str, quiet: bool, verbose: bool, **options: Any) -> None:
    """Build the TensorRT engine of BUNDLE before its first run.

    BUNDLE is a directory or the name of a shipped bundle, by default generic4. Neither PyTorch nor
    onnx is needed. A run with the same precision and batch on the same GPU finds the engine.
    """
    from ssdiff_trt.runtime.backends.tensorrt.building import build_engine
    from ssdiff_trt.runtime.bundle.store import open_bundle

    progress = progress_for(quiet, verbose)
    built = build_engine(
        open_bundle(bundle),
        progress=progress,
        **options,
    )
    size = built.path.stat().st_size / 2**20
    progress.note(f"Engine {built.path}: {size:.1f} MiB, {built.seconds:.0f} s")


@click.command(
    "contract",
    epilog=examples("ssdiff-trt contract generic4 --batch 8 -o step.json"),
)
@click.argument("bundle", type=BundleName())
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS[1:]),
    default="fp32",
    show_default=True,
    help="Precision of the graph.",
)
@click.option("--batch", default=1, show_default=True, help="Tiles that are computed at a time.")
@click.option("-o", "--output", type=FILE, required=True, help="JSON file to write.")
@overwrite_option
def contract_command(
    bundle: str, precision: Precision, batch: int, output: str, overwrite: bool
) -> None:
    """Describe the ONNX graph of BUNDLE as JSON, for programs that run it without this package.

    BUNDLE is a directory or the name of a shipped bundle. The graph is that of a sampling step;
    docs/integration.md explains the JSON.
    """
    from ssdiff_trt.runtime.bundle.contract import contract_of
    from ssdiff_trt.runtime.bundle.store import open_bundle

    check_json(output, overwrite)
    opened = open_bundle(bundle)
    graph = opened.graph("step", precision, "portable")
    contract = contract_of(opened, graph, positive("batch", batch))
    write_json(contract.model_dump_json(indent=1), output)
