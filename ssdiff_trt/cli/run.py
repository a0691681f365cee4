"""The ``ssdiff-trt run`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ssdiff_trt.cli.main import progress_for
from ssdiff_trt.cli.options import (
    FILE,
    block_options,
    bundle_option,
    check_json,
    cluster_options,
    examples,
    execution_options,
    json_option,
    output_options,
    pair_options,
    sampling_options,
    verbosity_options,
    write_json,
    write_json_of,
)
from ssdiff_trt.cli.report import check_report_of_run
from ssdiff_trt.runtime.options import CLUSTER, EXECUTION


@click.command(
    "run",
    context_settings={"allow_extra_args": True},  # which a pattern without quotes gives
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
    help="In place of MS, a file of one of its bands; repeat for each band.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="GeoTIFF to write, or a URL that fsspec writes to (extra cloud); default: "
    "MS_pansharpened.tif in the current directory.",
)
@click.option(
    "--scenes",
    metavar="TABLE.csv|PATTERN",
    help="In place of PAN and MS, many scenes: a table with the columns pan, ms, output and any "
    "option of this command; or a pattern with one * for the files of PAN, or the products; --ms "
    "and -o are then patterns with the same *.",
)
@click.option(
    "--stac",
    type=FILE,
    metavar="ITEM",
    help="In place of PAN and MS, a STAC item (a file or URL) that has both; an item for the "
    "result is written beside the result, as .json.",
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
    help="Print how the files are understood, and what time, memory and disk a run would take, "
    "measured on a few tiles; write nothing but --json.",
)
@click.option(
    "--quicklook",
    is_flag=True,
    help="Also draw PAN, MS, the result and its uncertainty, if it is written, in a PNG beside "
    "the result.",
)
@click.option(
    "--report",
    type=FILE,
    metavar="FILE.html",
    help="Also write an HTML page about the result, as ssdiff-trt report does.",
)
@click.option(
    "--adapt",
    type=float,
    metavar="MIN",
    help="First adapt the weights to the scene, for at most this many minutes, as ssdiff-ref "
    "adapt does; the bundle is kept beside the result, and used if it is there already.",
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
    """Pansharpen PAN and MS, two rasters of the same place.

    PAN is the panchromatic image; pixels of MS, the multispectral one, are 4 times as wide and as
    high. The result has the pixels of PAN and the bands of MS.

    Without MS, PAN is a product of Airbus (DIMAP) or Maxar (IMD) that has both: its folder, a ZIP
    of it, or VOL_*.XML. Bands, nodata and full scale are then read from its metadata.

    An interrupted run is continued by the same command. With --scenes, scenes whose result is
    complete are skipped, and one that fails does not stop the others; the exit status is then 1.
    """
    from ssdiff_trt.cli.scenes import FAILED, entries_of, print_scenes, run_one, run_scenes
    from ssdiff_trt.runtime.pansharpener import Pansharpener

    hint = " Put the patterns of --scenes in quotes." if pan and scenes else ""
    if more := click.get_current_context().args:
        raise click.UsageError(f"PAN, MS and more were given: {' '.join(more)}; give two.{hint}")
    sources = {"PAN": pan, "--scenes": scenes, "--stac": stac}
    named = [name for name, value in sources.items() if value is not None]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} were given; give one of them.{hint}")
    if not named:
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
            entries = entries_of(scenes, ms_bands, output, options["uncertainty"])
            done = run_scenes(sharpener, entries, progress, dry_run, options)
            write_json_of(done, json)
            print_scenes(done, progress, dry_run, table=not quiet and json != "-")
            return 1 if FAILED in done["counts"] else 0
        if item is not None and len(item.ms) == 1:
            ms = item.ms[0]
        given = {"ms": ms or ms_bands or None, "output": output, **options}
        summary = run_one(sharpener, progress, dry_run, pan=pan, report=report, **given)
    if item is not None and not dry_run:
        write_json(item.result(Path(str(output))), beside)
    write_json_of(summary, json)
    return 0
