"""A study of a bundle's sensitivity as one function: a table, a picture, a file."""

from __future__ import annotations

from pathlib import Path

from ssdiff_trt.calibration.picture import draw_study, reach
from ssdiff_trt.calibration.ranges import Method
from ssdiff_trt.calibration.samples import load, read_about
from ssdiff_trt.calibration.sensitivity import Study, study
from ssdiff_trt.runtime.bundle.manifest import Budget
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import check_picture
from ssdiff_trt.runtime.raster.output import check_target


def study_bundle(
    samples: str | Path,
    *,
    bundle: str | None = None,
    ranges: Method = "minmax",
    max_ergas_loss: float = 0.01,
    json: str | None = None,
    picture: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Study:
    """Rank the groups of a bundle's layers by what INT8 costs there, and choose a plan.

    Args:
        samples: file of :func:`ssdiff_trt.calibration.collection.collect`.
        bundle: whose layers; by default the one that the samples are of.
        ranges: how they are found; see :func:`ssdiff_trt.calibration.ranges.measure_ranges`.
        max_ergas_loss: that the plan may cost, of ERGAS and of SAM.
        json: file for all of it.
        picture: file for a picture.
        overwrite: replace these files where they exist.
        progress: told how work goes.

    Raises:
        SSDiffError: if the samples or the bundle cannot be used, or nothing fits the budget.
    """
    import onnx

    progress = progress or Progress()
    budget = Budget.allowing(max_ergas_loss)
    for option, target in (("--json", json), ("--picture", picture)):
        if target is not None:
            check_target(Path(target), [samples], overwrite, option)
    if picture is not None and picture == json:
        raise SSDiffError(f"--json and --picture are both {json}; give them different names.")
    if picture is not None:
        check_picture(Path(picture))
    opened = open_bundle(bundle or read_about(samples).bundle)
    known = load(samples, opened)
    model = onnx.load(opened.path / opened.graph("denoiser", "fp32", "fused").file)
    found = study(model, known, ranges, budget, progress)
    if json is not None:
        with atomic_write(Path(json)) as unfinished:
            unfinished.write_text(found.model_dump_json(indent=1) + "\n")
    if picture is not None:
        about = known.about
        title = f"{about.bundle} in INT8, one group at a time, on {', '.join(about.sources)}"
        draw_study(found, title, Path(picture))
    return found


def print_study(found: Study) -> None:
    """Print the ranking and the plan on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("group", "layers", box=None, padding=(0, 2, 0, 0))
    for name in ("dB to FP32", "ERGAS", "SAM", *(f"|x| t={t}" for t in found.ranges.timesteps), ""):
        table.add_column(name, justify="right")
    for cost in found.costs:
        verdict = cost.verdict
        table.add_row(
            cost.group,
            str(cost.layers),
            f"{verdict.psnr:.1f}",
            f"{verdict.ergas_loss:+.2%}",
            f"{verdict.sam_loss:+.2%}",
            *(f"{reach(found, cost.group, k):.3g}" for k in range(len(found.ranges.timesteps))),
            "" if cost.group in found.plan else "left out",
        )
    console.print(table)
    console.print(
        f"\n{len(found.plan)} of {len(found.costs)} groups fit a loss of {found.budget.loss:.2%}, "
        f"half of it on these tiles; left out: {', '.join(found.excluded) or 'none'}"
    )
