"""The GPU check, in stages, in one command: ``make gpu-check``.

    python -m benchmarks.gpu.check [-o out/gpu-check]

Each stage runs in a process of its own and writes a JSON file as soon as it ends; a second start
continues. The exit status is 0 if every stage ran and passed, 1 if something is missing or wrong,
and 2 if there is no GPU to check.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.gpu.report import STAGES, Outcome, faults, merged, write
from benchmarks.gpu.stages import Settings
from ssdiff_trt.cli.main import run
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import PRECISIONS, Precision

ROOT = Path(__file__).parents[2]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--bundle", default="generic4", help="Bundle to check, a folder or a name.")
@click.option("-o", "--output", default="out/gpu-check", help="Folder of the results.")
@click.option(
    "--minutes", default=8.0, help="Time after which no further stage is begun, in minutes."
)
@click.option(
    "--again",
    multiple=True,
    type=click.Choice(STAGES[1:]),
    help="Stage to run although its result is there; repeat.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS[1:]),
    default=["fp32", "fp16", "bf16"],
    help="Precision to check, if the bundle has it; repeat.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(1),
    default=[8, 32],
    help="Tiles in a batch, for throughput; repeat.",
)
def main(
    bundle: str,
    output: str,
    minutes: float,
    again: tuple[str, ...],
    precisions: tuple[Precision, ...],
    batches: tuple[int, ...],
) -> int:
    """Check this machine's GPU: engines, parity, CUDA graphs, speed, and PyTorch beside it."""
    began, folder = time.monotonic(), Path(output).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # Engines of earlier runs would not be timed; they are too large for the folder that is sent.
    os.environ.setdefault("SSDIFF_CACHE", f"{folder}-cache")
    settings = Settings(bundle=bundle, precisions=precisions, batches=batches)
    check_machine(folder, settings)
    for stage in STAGES[1:]:
        path = folder / f"{stage}.json"
        if path.exists() and stage not in again:
            click.echo(f"{stage}: {path} is there; --again {stage} runs it once more")
        elif time.monotonic() - began > 60 * minutes:
            click.echo(f"{stage}: left, as {minutes:g} minutes are over; start again to continue")
        else:
            click.echo(f"{stage} ...")
            run_in_process(stage, folder, settings)
    report = merged(folder)
    write(folder / "report.json", report)
    found = list(faults(report))
    for fault in found:
        click.echo(f"NOT PASSED: {fault}")
    click.echo(f"{'Not everything' if found else 'Everything'} passed: {folder / 'report.json'}")
    return 1 if found else 0


def check_machine(folder: Path, settings: Settings) -> None:
    """Describe the machine in the folder.

    Raises:
        SSDiffError: if there is no GPU, or the folder holds results of another one.
    """
    path = folder / "environment.json"
    before = merged(folder).environment.result if path.exists() else None
    with TemporaryDirectory(dir=folder) as scratch:
        run_in_process("environment", Path(scratch), settings)
        outcome = merged(Path(scratch)).environment
    if (machine := outcome.result) is None:
        raise InputError(f"The machine cannot be described: {outcome.error}")
    if before is None or before.gpu is None:
        write(path, outcome)
    if machine.gpu is None:
        raise InputError(
            f"There is no GPU to check: {machine.no_gpu}; run this on a machine with an NVIDIA GPU "
            "and pycuda or cuda-bindings."
        )
    if before and before.gpu:
        for what, then, now in (
            ("GPU", before.gpu.name, machine.gpu.name),
            ("bundle", before.bundle_sha256, machine.bundle_sha256),
        ):
            if then != now:
                raise InputError(
                    f"{folder} holds results of the {what} {then}, and this is {now}; give another "
                    "`output`."
                )
        write(path, outcome)


def run_in_process(stage: str, folder: Path, settings: Settings) -> None:
    """Run a stage in a process of its own, which writes its result, or else say how it ended."""
    path, began = folder / f"{stage}.json", time.monotonic()
    path.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.gpu.stages", stage, str(folder)]
    status = subprocess.run([*words, settings.model_dump_json()], cwd=ROOT).returncode
    if not path.exists():
        how = f"was killed (signal {-status})" if status < 0 else f"ended with status {status}"
        error = f"the process of the stage {how}; what it printed says why"
        write(path, Outcome(seconds=round(time.monotonic() - began, 2), error=error))


if __name__ == "__main__":
    run(main, "gpu-check")
