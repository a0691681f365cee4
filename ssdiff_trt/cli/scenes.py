"""What ``ssdiff-trt run`` does: one scene, or many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssdiff_trt.cli.messages import (
    print_estimate,
    print_plan,
    print_result,
    print_total,
    print_understood,
    sentence,
)
from ssdiff_trt.cli.options import scene_options
from ssdiff_trt.runtime.errors import InputError, OutputError, SSDiffError, counted
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.scenes import SEPARATOR, SceneEntry, match_scenes, read_scenes

if TYPE_CHECKING:
    from ssdiff_trt.runtime.pansharpener import Pansharpener

DONE, PLANNED, COMPLETE, FAILED = "done", "planned", "complete", "failed"
"""What became of a scene; planned: by a dry run; complete: it was before."""


def run_one(
    sharpener: Pansharpener,
    progress: Progress,
    dry_run: bool,
    *,
    keep_complete: bool = False,
    report: str | None = None,
    **options: Any,
) -> dict[str, Any] | None:
    """Pansharpen one scene, and print what is assumed and what was done.

    Args:
        sharpener: opened.
        progress: receives progress updates.
        dry_run: whether only the cost is printed.
        keep_complete: whether a complete output of the same work is kept.
        report: page to write about the result.
        options: parameters of :meth:`Pansharpener.plan`.

    Returns:
        A summary, as JSON can hold it; None if the output was complete.
    """
    overwrite = options.pop("overwrite")
    with sharpener.plan(overwrite=overwrite or keep_complete, progress=progress, **options) as plan:
        backend = sharpener.describe(plan)
        written = {"output": plan.output, "uncertainty": plan.uncertainty}
        there = {name: path for name, path in written.items() if path and path.exists()}
        if keep_complete and there:
            if plan.sink.is_complete(plan.work(backend)):
                progress.note(f"{plan.output} is complete")
                return None
            if not overwrite:
                name, path = next(iter(there.items()))
                raise OutputError(
                    f"{path} exists, and not as this command would make it; give another "
                    f"`{name}` or pass `overwrite`."
                )
        print_plan(plan, progress)
        progress.note(f"Backend: {backend}")
        if dry_run:
            print_understood(plan, progress)
            estimate = sharpener.estimate(plan)
            print_estimate(estimate, progress)
            return {**plan.summary(backend), "estimate": estimate.summary()}
        result = sharpener.run(plan, progress)
        print_result(result, progress)
        if report is not None:
            from ssdiff_trt.cli.report import report_run

            try:
                report_run(result, Path(report), progress)
            except BaseException:  # Ctrl-C too
                progress.note(f"{plan.output} is complete; ssdiff-trt report can make its page")
                raise
    return result.summary()


def entries_of(
    scenes: str, ms: tuple[str, ...], output: str | None, uncertainty: str | None
) -> list[SceneEntry]:
    """The scenes of a table that ends in ``.csv``, or those that match patterns."""
    if Path(scenes).suffix.lower() != ".csv":
        return match_scenes(scenes, ms, output, uncertainty)
    if ms or output:
        raise click.UsageError("--ms and -o are columns of the table; leave them out.")
    if uncertainty:
        raise click.UsageError("--uncertainty is a column of the table; leave it out.")
    return read_scenes(scenes, converter(click.get_current_context()))


def run_scenes(
    sharpener: Pansharpener,
    entries: Sequence[SceneEntry],
    progress: Progress,
    dry_run: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Pansharpen many scenes one after the other.

    Args:
        sharpener: opened; its networks stay open.
        entries: the scenes.
        progress: receives progress updates.
        dry_run: whether only the cost is printed.
        options: of every scene, unless its own differ.

    Returns:
        What became of each scene, and how many have each status, as JSON can hold it.
    """
    reports: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, start=1):
        progress.note(f"Scene {number} of {len(entries)}: {entry.pan}")
        report = {"pan": entry.pan, "ms": list(entry.ms), "output": entry.output}
        status, error, summary = _attempt(sharpener, entry, progress, dry_run, options)
        if error:
            progress.warn(f"{entry.pan} failed: {error}")
        reports.append({**report, "status": status, "error": error, "summary": summary})
    return {"scenes": reports, "counts": dict(Counter(report["status"] for report in reports))}


def print_scenes(done: dict[str, Any], progress: Progress, dry_run: bool, table: bool) -> None:
    """Print what :func:`run_scenes` returned; the table of scenes only if asked for."""
    reports: list[dict[str, Any]] = done["scenes"]
    if table:
        _print_table(reports)
    shares = [f"{count} {status}" for status, count in done["counts"].items()]
    progress.note(f"{counted(len(reports), 'scene')}: {', '.join(shares)}")
    if dry_run:
        print_total(
            [report["summary"]["estimate"] for report in reports if report["summary"]], progress
        )


def _attempt(
    sharpener: Pansharpener,
    entry: SceneEntry,
    progress: Progress,
    dry_run: bool,
    options: dict[str, Any],
) -> tuple[str, str | None, dict[str, Any] | None]:
    """What became of a scene, why it failed, and its summary."""
    ms = entry.ms[0] if len(entry.ms) == 1 else entry.ms or None
    given = {**options, **entry.options, "pan": entry.pan, "ms": ms, "output": entry.output}
    try:
        summary = run_one(sharpener, progress, dry_run, keep_complete=True, **given)
    except SSDiffError as error:
        return FAILED, sentence(error), None
    except Exception as error:  # the other scenes go on, whatever is wrong with this one
        return FAILED, f"{type(error).__name__}: {error}", None
    return (COMPLETE if summary is None else PLANNED if dry_run else DONE), None, summary


def converter(context: click.Context) -> Callable[[str, str], tuple[str, Any]]:
    """Makes arguments of the options in a table, as the command line would."""
    known = {
        flag.lstrip("-").replace("-", "_"): param
        for param in context.command.params
        if isinstance(param, click.Option) and param.name in scene_options()
        for flag in param.opts
        if flag.startswith("--")
    }

    def convert(name: str, text: str) -> tuple[str, Any]:
        param = known.get(name.replace("-", "_"))
        if param is None:
            raise InputError(
                f"There is no option {name!r} of a scene, expected pan, ms, output or one of "
                f"{', '.join(sorted(known))}."
            )
        try:
            value = text.split(SEPARATOR) if param.multiple else text
            return str(param.name), param.process_value(context, value)
        except click.BadParameter as error:
            raise InputError(error.format_message().rstrip(".") + ".") from error

    return convert


def _print_table(reports: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from ssdiff_trt.runtime.progress import print_text

    table = Table("scene", "status", "output or error")
    for report in reports:
        summary = report["summary"]
        output = summary["output"] if summary else report["output"]
        table.add_row(report["pan"], report["status"], report["error"] or output or "")
    print_text(table)
