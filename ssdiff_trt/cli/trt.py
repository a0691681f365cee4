"""The ``ssdiff-trt`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ssdiff_trt.cli.engines import build_command, contract_command
from ssdiff_trt.cli.main import progress_for, run
from ssdiff_trt.cli.options import (
    FILE,
    SETTINGS,
    BundleName,
    check_json,
    examples,
    group_options,
    integers,
    json_option,
    one_option,
    overwrite_option,
    verbosity_options,
    watts,
    write_json,
)
from ssdiff_trt.cli.process import process, share_cores_and_memory
from ssdiff_trt.cli.report import report_command
from ssdiff_trt.cli.run import run_command
from ssdiff_trt.runtime.errors import install
from ssdiff_trt.runtime.options import BACKENDS, PRECISIONS, ExecutionOptions

REFERENCE = "ssdiff_ref.network.backend:open_torch"
"""The PyTorch reference, for benchmarks."""


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Pansharpen satellite images by diffusion.

    A BUNDLE is a folder with the network: generic4 (4 bands) and generic8 (8 bands) are included.
    "ssdiff-trt run PAN MS --dry-run" shows how a pair of images is understood.
    """


@cli.command(
    "verify",
    epilog=examples(
        "ssdiff-trt verify generic4 --precision fp16 --backend tensorrt",
        "ssdiff-trt verify mine.ssdiff --json verification.json",
        "ssdiff-trt verify generic4 --precision fp16 --layers --save-inputs inputs.npz",
    ),
)
@click.argument("bundle", type=BundleName())
@group_options(ExecutionOptions, without=("batch",))
@click.option(
    "--layers",
    is_flag=True,
    help="Also compare every layer at the step that deviates most, and name the first that "
    "differs; on the first GPU. Needs the extra debug (pip).",
)
@click.option(
    "--save-inputs",
    type=FILE,
    metavar="FILE.npz",
    help="Write the network's inputs at each compared step, to reproduce a deviation.",
)
@json_option
@overwrite_option
@verbosity_options
def verify_command(
    bundle: str, json: str | None, quiet: bool, verbose: bool, **options: Any
) -> int:
    """Compare each sampling step of BUNDLE on this machine with FP32 on the CPU.

    BUNDLE is a directory or the name of a shipped bundle. The exit status is 1 if a step deviates
    by more than the limits for the precision.
    """
    from ssdiff_trt.cli.info import print_verification
    from ssdiff_trt.runtime.parity.verification import verify

    check_json(json, options["overwrite"], options["save_inputs"])
    verification = verify(bundle, progress=progress_for(quiet, verbose), **options)
    write_json(verification.model_dump_json(indent=2), json)
    if not quiet and json != "-":
        print_verification(verification)
    return 0 if verification.passed else 1


@cli.command(
    "bench",
    epilog=examples(
        "ssdiff-trt bench --reference --json now.json --plot now.png",
        "ssdiff-trt bench generic8 --scene pan.tif ms.tif --steps 1,10",
        "ssdiff-trt bench --compare before.json",
    ),
)
@click.argument("bundle", type=BundleName(), default="generic4")
@click.option(
    "--backend",
    "backends",
    type=click.Choice(BACKENDS),
    multiple=True,
    default=["auto"],
    help="Library that runs the network; repeat to compare. Default: auto.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=["auto"],
    help="Precision of the network; repeat to compare. Default: auto.",
)
@click.option(
    "--batch",
    "batches",
    callback=integers,
    default="1,2,4,8",
    show_default=True,
    metavar="N,N,...",
    help="Numbers of tiles that are computed at a time.",
)
@click.option(
    "--steps",
    callback=integers,
    metavar="N,N,...",
    help="Numbers of sampling steps; default: one, and the bundle's.",
)
@click.option("--reference", is_flag=True, help="Also measure the PyTorch reference.")
@click.option(
    "--scene",
    nargs=2,
    type=FILE,
    metavar="PAN MS",
    help="Also measure a whole run on this pair, from files to file.",
)
@click.option(
    "--rounds", default=3, show_default=True, help="Number of fresh processes for each case."
)
@click.option(
    "--repeats", default=5, show_default=True, help="Smallest number of runs in each process."
)
@click.option(
    "--seconds", default=1.0, show_default=True, help="Smallest time in each process, in seconds."
)
@one_option(ExecutionOptions, "device")
@one_option(ExecutionOptions, "threads")
@one_option(ExecutionOptions, "trust_engines")
@click.option(
    "--budget",
    callback=watts,
    metavar="WATTS",
    help="Mark candidates whose mean power is higher than this, such as 30W.",
)
@click.option(
    "--power-label", metavar="NAME", help="Name of the power mode; default: a Jetson's own."
)
@json_option
@click.option(
    "--plot", type=FILE, metavar="FILE", help="Draw latency and throughput against batch size."
)
@click.option(
    "--compare", type=FILE, metavar="OLD.json", help="Compare with an earlier benchmark's JSON."
)
@overwrite_option
@verbosity_options
def bench_command(
    quiet: bool,
    verbose: bool,
    compare: str | None,
    json: str | None,
    reference: bool,
    **parameters: Any,
) -> None:
    """Measure BUNDLE on this machine: latency, throughput, memory, loading, energy.

    BUNDLE is a directory or the name of a shipped bundle, by default generic4.
    """
    from importlib.util import find_spec

    from ssdiff_trt.runtime.benchmark.results import read_benchmark
    from ssdiff_trt.runtime.benchmark.rounds import bench
    from ssdiff_trt.runtime.benchmark.tables import print_comparison, print_tables

    if reference and find_spec("torch") is None:
        raise click.UsageError(
            f"--reference needs PyTorch, which is not installed; {install('export')}."
        )
    older = read_benchmark(compare) if compare else None
    benchmark = bench(
        progress=progress_for(quiet, verbose),
        reference=REFERENCE if reference else None,
        json=None if json == "-" else json,
        **parameters,
    )
    if json == "-":
        write_json(benchmark.model_dump_json(indent=1), json)
    elif not quiet:
        print_tables(benchmark)
        if older:
            print_comparison(benchmark, older)


@cli.command(
    "doctor", epilog=examples("ssdiff-trt doctor", "ssdiff-trt doctor --archive support.zip")
)
@json_option
@click.option(
    "--archive",
    type=FILE,
    metavar="FILE",
    help="Also write a ZIP to attach to a report of a fault: the findings and the installed "
    "packages, without your paths and names.",
)
@overwrite_option
@verbosity_options
def doctor_command(
    json: str | None, archive: str | None, overwrite: bool, quiet: bool, verbose: bool
) -> int:
    """Check what this machine has for a run, and print how to install what is missing.

    Each backend (a library that runs the network) that is installed computes a tile, which is
    compared with FP32 on the CPU. The exit status is 1 if no run would work.
    """
    from ssdiff_trt.cli.doctor import print_diagnosis
    from ssdiff_trt.runtime.doctor import diagnose, write_archive
    from ssdiff_trt.runtime.files import check_target

    check_json(json, overwrite)
    if archive is not None:
        check_target(Path(archive), (), overwrite, "archive")
    progress = progress_for(quiet, verbose)
    diagnosis = diagnose(progress=progress)
    write_json(diagnosis.model_dump_json(indent=1), json)
    if archive is not None:
        write_archive(diagnosis, Path(archive))
    if not quiet and json != "-":
        print_diagnosis(diagnosis)
    if archive is not None:
        progress.note(f"Wrote {archive}")
    return 0 if diagnosis.usable else 1


@cli.command("info", epilog=examples("ssdiff-trt info", "ssdiff-trt info generic4 --json -"))
@click.argument("bundle", type=BundleName(), required=False)
@json_option
@overwrite_option
def info_command(bundle: str | None, json: str | None, overwrite: bool) -> None:
    """Check and describe a bundle.

    BUNDLE is a directory or the name of a shipped bundle; without it, the shipped ones are listed.
    """
    from ssdiff_trt.cli.info import describe, summary
    from ssdiff_trt.runtime.bundle.store import open_bundle, shipped

    if bundle is None:
        if json is not None:
            raise click.UsageError("--json describes one bundle; name it.")
        for name in shipped():
            click.echo(summary(open_bundle(name)))
        return
    check_json(json, overwrite)
    opened = open_bundle(bundle)
    write_json(opened.manifest.model_dump_json(indent=2), json)
    if json != "-":
        describe(opened)


for command in (run_command, build_command, contract_command, report_command):
    cli.add_command(command)


def main() -> None:
    """Entry point."""
    share_cores_and_memory()
    with process():
        run(cli, "ssdiff-trt")
