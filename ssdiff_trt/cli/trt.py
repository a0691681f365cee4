"""The ``ssdiff-trt`` command."""

from __future__ import annotations

from typing import Any

import click

from ssdiff_trt.cli.options import (
    BACKEND,
    PRECISION,
    SETTINGS,
    backend_option,
    input_options,
    integers,
    output_options,
    overwrite_option,
    precision_option,
    run,
    sampling_options,
    shift_option,
    verbosity_options,
    watts,
)
from ssdiff_trt.cli.process import share_cores_and_memory


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Pansharpen satellite images by diffusion."""


@cli.command("run")
@click.argument("pan")
@click.argument("ms")
@click.option("-o", "--output", help="Result; default: MS_pansharpened.tif, here.")
@click.option("--bundle", help="Bundle to use; default: the one that comes along and fits.")
@input_options
@click.option("--full-scale", type=float, help="Of the data; default: of the file or the sensor.")
@click.option("--pan-full-scale", type=float, help="That of PAN, if it differs.")
@shift_option(
    "auto", "PAN pixels by which MS lies further than it says; auto measures and corrects it."
)
@click.option("--steps", type=int, help="Number of evenly spaced steps; default: the bundle's.")
@sampling_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option(
    "--tile-overlap",
    type=int,
    default=16,
    show_default=True,
    help="Pixels over which tiles fade into each other.",
)
@click.option(
    "--batch",
    type=int,
    help="Tiles at a time; default: what suits the backend. More takes more memory.",
)
@click.option(
    "--window", type=int, default=768, show_default=True, help="Pixels read at a time, on a side."
)
@click.option("--threads", type=int, help="Threads of the CPU; default: all cores.")
@backend_option
@precision_option
@output_options
@click.option("--quicklook", is_flag=True, help="Draw PAN, MS and result in a PNG beside it.")
@verbosity_options
def run_command(quiet: bool, verbose: bool, **parameters: Any) -> None:
    """Pansharpen PAN and MS, two rasters of the same place, MS with 4 times the pixel size."""
    from ssdiff_trt.runtime.pansharpen import pansharpen
    from ssdiff_trt.runtime.progress import choose

    pansharpen(progress=choose(quiet, verbose), **parameters)


@cli.command("verify")
@click.argument("bundle")
@backend_option
@precision_option
@click.option("--json", "as_json", is_flag=True, help="Print the deviations as JSON.")
@verbosity_options
def verify_command(
    bundle: str, backend: str, precision: Any, as_json: bool, quiet: bool, verbose: bool
) -> int:
    """Prove BUNDLE on this machine: each step against FP32 on the CPU. Exit status 1 if it fails.

    BUNDLE is a directory or the name of one that comes along.
    """
    from ssdiff_trt.cli.info import print_verification
    from ssdiff_trt.runtime.parity.verification import verify
    from ssdiff_trt.runtime.progress import choose

    verification = verify(bundle, backend, precision, choose(quiet, verbose))
    if as_json:
        click.echo(verification.model_dump_json(indent=2))
    elif not quiet:
        print_verification(verification)
    return 0 if verification.passed else 1


@cli.command("bench")
@click.argument("bundle", default="generic4")
@click.option(
    "--backend",
    "backends",
    type=BACKEND,
    multiple=True,
    default=["auto"],
    help="What runs the network; repeat to compare. Default: auto.",
)
@click.option(
    "--precision",
    "precisions",
    type=PRECISION,
    multiple=True,
    default=["auto"],
    help="Of the network; repeat to compare. Default: auto.",
)
@click.option(
    "--batch",
    "batches",
    callback=integers,
    default="1,2,4,8",
    show_default=True,
    metavar="N,N,...",
    help="Tiles at a time.",
)
@click.option(
    "--steps",
    callback=integers,
    metavar="N,N,...",
    help="Numbers of sampling steps; default: one, and the bundle's.",
)
@click.option("--reference", is_flag=True, help="Measure the PyTorch reference beside them.")
@click.option(
    "--scene", nargs=2, metavar="PAN MS", help="Also pansharpen these rasters from end to end."
)
@click.option("--rounds", default=3, show_default=True, help="Fresh processes for each case.")
@click.option("--repeats", default=5, show_default=True, help="Least number of runs in each.")
@click.option("--seconds", default=1.0, show_default=True, help="Least time in each.")
@click.option("--threads", type=int, help="Threads of the CPU; default: all cores.")
@click.option(
    "--budget", callback=watts, metavar="WATTS", help="Tell what takes more than this, as in 30W."
)
@click.option("--power-label", help="Name of the power mode; default: a Jetson's own.")
@click.option("--json", metavar="FILE", help="Write every run and the environment there.")
@click.option("--plot", metavar="FILE", help="Draw latency and throughput against batch there.")
@click.option("--compare", metavar="OLD.json", help="Hold it against an older benchmark.")
@overwrite_option
@verbosity_options
def bench_command(
    quiet: bool, verbose: bool, compare: str | None, reference: bool, **parameters: Any
) -> None:
    """Measure BUNDLE on this machine: latency, throughput, memory, loading, energy.

    BUNDLE is a directory or the name of one that comes along, by default generic4.
    """
    from importlib.util import find_spec

    from ssdiff_trt.runtime.benchmark.results import read_benchmark
    from ssdiff_trt.runtime.benchmark.rounds import bench
    from ssdiff_trt.runtime.benchmark.tables import print_comparison, print_tables
    from ssdiff_trt.runtime.errors import SSDiffError
    from ssdiff_trt.runtime.progress import choose

    if reference and find_spec("torch") is None:
        raise SSDiffError(
            "--reference needs PyTorch, which is not installed; pip install 'ssdiff-trt[export]'."
        )
    older = read_benchmark(compare) if compare else None
    benchmark = bench(
        progress=choose(quiet, verbose),
        reference="ssdiff_ref.network.backend:open_torch" if reference else None,
        **parameters,
    )
    if not quiet:
        print_tables(benchmark)
        if older:
            print_comparison(benchmark, older)


@cli.command("info")
@click.argument("bundle", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest itself.")
def info_command(bundle: str | None, as_json: bool) -> None:
    """Check and describe a bundle.

    BUNDLE is a directory or the name of one that comes along; without it, their names are listed.
    """
    from ssdiff_trt.cli.info import describe
    from ssdiff_trt.runtime.bundle.store import open_bundle, shipped

    if bundle is None:
        click.echo("\n".join(shipped()))
        return
    opened = open_bundle(bundle)
    if as_json:
        click.echo(opened.manifest.model_dump_json(indent=2))
    else:
        describe(opened)


def main() -> None:
    """Entry point."""
    share_cores_and_memory()
    run(cli)
