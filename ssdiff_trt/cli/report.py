"""``ssdiff-trt report``, and the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssdiff_trt.cli.main import progress_for
from ssdiff_trt.cli.messages import as_flags, print_plan, print_result
from ssdiff_trt.cli.options import (
    FILE,
    examples,
    group_options,
    overwrite_option,
    sensor_option,
    verbosity_options,
)
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.progress import Progress

if TYPE_CHECKING:
    from ssdiff_trt.runtime.plan.result import Result


@click.command(
    "report",
    epilog=examples(
        "ssdiff-trt report sharp.tif --pan pan.tif --ms ms.tif -o sharp.html",
        "ssdiff-trt report sharp.tif --pan PRODUCT/ --uncertainty error.tif",
    ),
)
@click.argument("result", type=FILE)
@click.option(
    "--pan", type=FILE, required=True, metavar="FILE", help="PAN of the result, or a product."
)
@click.option(
    "--ms",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="MS of the result; repeat for files of one band each.",
)
@click.option(
    "-o", "--output", type=FILE, metavar="FILE.html", help="Page to write; default: RESULT.html."
)
@click.option(
    "--uncertainty",
    type=FILE,
    metavar="FILE.tif",
    help="File of the uncertainty of the result, if there is one.",
)
@sensor_option
@group_options(ReadOptions)
@overwrite_option
@verbosity_options
def report_command(quiet: bool, verbose: bool, ms: tuple[str, ...], **parameters: Any) -> None:
    """Write a page about RESULT: images to compare, position of MS, maps of quality, provenance.

    The page is one HTML file that works offline. Give the same options for bands and nodata as for
    the run. Only "ssdiff-trt run --report" shows how long the run took.
    """
    from ssdiff_ref.report.report import report

    one = ms[0] if len(ms) == 1 else ms or None
    report(ms=one, progress=progress_for(quiet, verbose), **parameters)


def check_report_of_run(
    report: str, scenes: str | None, output: str | None, overwrite: bool, *inputs: str | None
) -> None:
    """That a run can have a report, before it begins.

    Args:
        report: page to write.
        scenes: many scenes, if it is a run of these.
        output: result of the run.
        overwrite: whether the page may exist.
        inputs: of the run.

    Raises:
        UsageError: if such a run has none.
        OutputError: if it cannot be written there.
        ModuleNotFoundError: if a package is missing.
    """
    from ssdiff_ref.report.report import check_report
    from ssdiff_trt.runtime.raster.fingerprint import every_file
    from ssdiff_trt.runtime.uploads import is_url

    if scenes is not None:
        raise click.UsageError(
            "--report is for one scene; for many, call ssdiff-trt report for each result."
        )
    if is_url(output):
        raise click.UsageError(
            f"--report needs the result on a disk and {output} is a URL; leave --report out."
        )
    check_report(Path(report), every_file(*filter(None, inputs)), overwrite)


def report_run(result: Result, path: Path, progress: Progress) -> None:
    """Write the report of a run whose pair is still open."""
    from ssdiff_ref.report.report import write_report
    from ssdiff_trt.runtime.raster.scene import Scene

    plan, transcript = result.plan, Transcript()
    print_plan(plan, transcript)
    assumed = transcript.take()
    print_result(result, transcript)
    scene = plan.source
    assert isinstance(scene, Scene)
    assert plan.output is not None
    write_report(
        path,
        scene,
        plan.output,
        sensor=plan.optics,
        names=plan.bundle.manifest.sensor.bands,
        uncertainty=plan.uncertainty,
        measured=plan.assumptions.measured_shift,
        settings={
            "What was assumed": assumed,
            "What was done": transcript.take(),
            "Warnings": transcript.warnings or ["There were none."],
        },
        progress=progress,
    )


class Transcript(Progress):
    """Collects the messages of a run as its command prints them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def take(self) -> list[str]:
        """The lines so far."""
        lines, self.lines = self.lines, []
        return lines

    def note(self, text: str) -> None:
        self.lines.append(as_flags(text))

    def detail(self, text: str) -> None:
        self.note(text)

    def warn(self, text: str) -> None:
        self.warnings.append(as_flags(text))
