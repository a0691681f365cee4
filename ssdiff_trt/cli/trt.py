"""The ``ssdiff-trt`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ssdiff_trt.cli.main import progress_for, run
from ssdiff_trt.cli.options import (
    FILE,
    SETTINGS,
    BundleName,
    block_options,
    bundle_option,
    check_json,
    cluster_options,
    examples,
    execution_options,
    group_options,
    integers,
    json_option,
    one_option,
    output_options,
    overwrite_option,
    pair_options,
    sampling_options,
    verbosity_options,
    watts,
    write_json,
    write_json_of,
)
from ssdiff_trt.cli.process import process, share_cores_and_memory
from ssdiff_trt.cli.report import check_report_of_run, report_command
from ssdiff_trt.runtime.arguments import positive
from ssdiff_trt.runtime.options import (
    BACKENDS,
    CLUSTER,
    EXECUTION,
    PRECISIONS,
    ExecutionOptions,
    Precision,
)

REFERENCE = "ssdiff_ref.network.backend:open_torch"
"""The PyTorch reference, for benchmarks."""


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="ssdiff-trt")
def cli() -> None:
    """Pansharpen satellite images by diffusion."""


@cli.command(
    "run",
    epilog=examples(
        "ssdiff-trt run pan.tif ms.tif",
        "ssdiff-trt run PRODUCT/ -o sharp.tif",
        "ssdiff-trt run pan.tif ms.tif -o sharp.tif --bands blue,green,red,nir --quicklook",
        "ssdiff-trt run pan.tif --ms b.tif --ms g.tif --ms r.tif --ms nir.tif -o sharp.tif",
        "ssdiff-trt run --scenes 'in/*_pan.tif' --ms 'in/*_ms.tif' -o 'out/*.tif'",
        "ssdiff-trt run pan.tif ms.tif --driver COG --co COMPRESS=ZSTD --full-scale 10000",
        "ssdiff-trt run pan.tif ms.tif -o sharp.tif --adapt 10",
        "ssdiff-trt run pan.tif ms.tif -o sharp.tif --scheduler tcp://10.0.0.1:8786",
    ),
)
@click.argument("pan", type=FILE, required=False)
@click.argument("ms", type=FILE, required=False)
@click.option(
    "--ms",
    "ms_bands",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="In place of MS: one file for each of its bands; repeat.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="GeoTIFF to write; default: MS_pansharpened.tif in the current directory.",
)
@click.option(
    "--scenes",
    metavar="TABLE.csv|PATTERN",
    help="In place of PAN and MS, many scenes: a table with the columns pan, ms, output and any "
    "option of this command; or the pattern of PANs, or of products, with one *, which --ms and "
    "-o can have too.",
)
@click.option(
    "--stac",
    type=FILE,
    metavar="ITEM",
    help="In place of PAN and MS, a STAC item, file or URL, that has both; an item for the result "
    "is written beside it, as .json.",
)
@bundle_option("Bundle to use; default: the shipped one that fits the number of bands.", "default")
@pair_options
@sampling_options
@execution_options
@cluster_options
@output_options
@block_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be done, and what it costs, measured on a few tiles; write nothing but "
    "--json.",
)
@click.option(
    "--quicklook",
    is_flag=True,
    help="Draw PAN, MS, result and, with --uncertainty, that in a PNG beside the result.",
)
@click.option(
    "--report",
    type=FILE,
    metavar="FILE.html",
    help="Also write a page about the result, as ssdiff-trt report does.",
)
@click.option(
    "--adapt",
    type=float,
    metavar="MIN",
    help="First adapt the weights to the scene, for so many minutes at most, as ssdiff-ref adapt "
    "does; the bundle is kept beside the result, and used if it is there already.",
)
@json_option
@verbosity_options
def run_command(
    pan: str | None,
    ms: str | None,
    ms_bands: tuple[str, ...],
    output: str | None,
    scenes: str | None,
    stac: str | None,
    bundle: str | None,
    quicklook: bool,
    dry_run: bool,
    adapt: float | None,
    report: str | None,
    json: str | None,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Pansharpen PAN and MS, two rasters of the same place, MS with 4 times the pixel size.

    Without MS, PAN is a product of Airbus (DIMAP) or Maxar (IMD) that has both: its folder, a ZIP
    of it, or VOL_*.XML. Bands, nodata and full scale are then read from its metadata.

    An interrupted run is continued by the same command. Of many scenes, those whose result is
    complete are skipped, and one that fails does not stop the others; the exit status is then 1.
    """
    from ssdiff_trt.cli.scenes import run_one, run_scenes
    from ssdiff_trt.runtime.pansharpener import Pansharpener

    if sum(given is not None for given in (pan, scenes, stac)) != 1:
        raise click.UsageError("PAN, --scenes or --stac is needed; give one of them.")
    if ms and ms_bands:
        raise click.UsageError(
            "MS and --ms were both given; give MS, or --ms for each of its bands."
        )
    item = None
    if stac is not None:
        from ssdiff_trt.cli.stac import pair_of

        item, beside = pair_of(stac, output, ms or ms_bands, options)
        pan, ms_bands = item.pan, item.ms
    written = output, options["uncertainty"], report
    check_json(json, options["overwrite"], pan, ms, *ms_bands, *written, scenes)
    progress = progress_for(quiet, verbose)
    execution = {name: options.pop(name) for name in EXECUTION}
    cluster = {name: options.pop(name) for name in CLUSTER}
    execution |= {} if dry_run else cluster  # costs are measured in this process
    options |= {"quicklook": quicklook}
    if report is not None:
        check_report_of_run(report, scenes, output, options["overwrite"], pan, ms, *ms_bands)
    if adapt is not None:
        if scenes is not None or dry_run:
            raise click.UsageError(
                "--adapt is for one scene that is run; for many, give --bundle what ssdiff-ref "
                "adapt --scenes writes."
            )
        from ssdiff_trt.cli.adaptation import adapted_bundle

        files = (ms,) if ms else ms_bands
        bundle = adapted_bundle(adapt, str(pan), files, output, bundle, options, progress)
    with Pansharpener(bundle, progress=progress, **execution) as sharpener:
        if scenes is not None:
            return run_scenes(
                sharpener, scenes, ms_bands, output, progress, json, quiet, dry_run, options
            )
        if item is not None and len(item.ms) == 1:
            ms = item.ms[0]
        given = {"ms": ms or ms_bands or None, "output": output, **options}
        summary = run_one(sharpener, progress, dry_run, pan=pan, report=report, **given)
    if item is not None and not dry_run:
        write_json(item.result(Path(str(output))), beside)
    write_json_of(summary, json)
    return 0


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
    help="Also compare every layer, at the step that deviates most, and name the first that "
    "differs; on the first GPU. Needs the extra debug.",
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

    BUNDLE is a directory or the name of a shipped bundle. The exit status is 1 if a step is beyond
    the limits.
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
    help="Inference engine; repeat to compare. Default: auto.",
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
    "--scene", nargs=2, type=FILE, metavar="PAN MS", help="Also pansharpen this pair, file to file."
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
    help="Mark candidates with a higher mean power, such as 30W.",
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
            "--reference needs PyTorch, which is not installed; pip install 'ssdiff-trt[export]'."
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
    help="Flavour of TensorRT; auto: the one that is installed.",
)
@one_option(
    ExecutionOptions, "precision", "Precision of the network; auto: fp16 if the bundle has it."
)
@one_option(
    ExecutionOptions,
    "batch",
    "Most tiles that are computed at a time; the engine has the next power of two. Default: what "
    "suits precision and GPU.",
)
@one_option(ExecutionOptions, "device")
@click.option(
    "--gpu",
    metavar="SM",
    help="In place of a GPU of this machine, for TensorRT-RTX: a compute capability such as sm86.",
)
@click.option(
    "--engine-file",
    "output",
    type=FILE,
    metavar="FILE",
    help="Also write the engine to a file, for another program, and beside it as .json what that "
    "needs to know (docs/integration.md).",
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


@cli.command(
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
    """Write what a program without this package needs to sample with BUNDLE, as JSON.

    It describes the ONNX graph of a sampling step; docs/integration.md explains it.
    """
    from ssdiff_trt.runtime.bundle.contract import contract_of
    from ssdiff_trt.runtime.bundle.store import open_bundle

    check_json(output, overwrite)
    opened = open_bundle(bundle)
    graph = opened.graph("step", precision, "portable")
    contract = contract_of(opened, graph, positive("batch", batch))
    write_json(contract.model_dump_json(indent=1), output)


@cli.command(
    "doctor", epilog=examples("ssdiff-trt doctor", "ssdiff-trt doctor --archive support.zip")
)
@json_option
@click.option(
    "--archive",
    type=FILE,
    metavar="FILE",
    help="Also write a ZIP to send: the findings and the installed packages, without paths and "
    "names of yours.",
)
@overwrite_option
@verbosity_options
def doctor_command(
    json: str | None, archive: str | None, overwrite: bool, quiet: bool, verbose: bool
) -> int:
    """Look at what this machine has for a run, try it, and say what mends what is missing.

    Each backend that is installed computes a tile, which is compared with FP32 on the CPU. The exit
    status is 1 if no run would work.
    """
    from ssdiff_trt.cli.doctor import print_diagnosis
    from ssdiff_trt.runtime.doctor import diagnose, write_archive
    from ssdiff_trt.runtime.files import check_target

    check_json(json, overwrite)
    if archive is not None:
        check_target(Path(archive), (), overwrite, "archive")
    diagnosis = diagnose(progress=progress_for(quiet, verbose))
    write_json(diagnosis.model_dump_json(indent=1), json)
    if archive is not None:
        write_archive(diagnosis, Path(archive))
    if not quiet and json != "-":
        print_diagnosis(diagnosis)
    return 0 if diagnosis.usable else 1


@cli.command("info", epilog=examples("ssdiff-trt info", "ssdiff-trt info generic4 --json -"))
@click.argument("bundle", type=BundleName(), required=False)
@json_option
@overwrite_option
def info_command(bundle: str | None, json: str | None, overwrite: bool) -> None:
    """Check and describe a bundle.

    BUNDLE is a directory or the name of a shipped bundle; without it, the shipped ones are listed.
    """
    from ssdiff_trt.cli.info import describe
    from ssdiff_trt.runtime.bundle.store import open_bundle, shipped

    if bundle is None:
        if json is not None:
            raise click.UsageError("--json describes one bundle; name it.")
        click.echo("\n".join(shipped()))
        return
    check_json(json, overwrite)
    opened = open_bundle(bundle)
    write_json(opened.manifest.model_dump_json(indent=2), json)
    if json != "-":
        describe(opened)


cli.add_command(report_command)


def main() -> None:
    """Entry point."""
    share_cores_and_memory()
    with process():
        run(cli, "ssdiff-trt")
