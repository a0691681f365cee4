"""What the GPU check found on one machine: a model of each stage's result, stored as JSON.

    python -m benchmarks.gpu.report report.json     # checks such a file

The folder of a check holds a file for each stage, such as ``parity.json``, and ``report.json`` with
all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import click

from ssdiff_trt.cli.main import run
from ssdiff_trt.runtime.benchmark.results import Benchmark, Environment
from ssdiff_trt.runtime.bundle.measured import Parity, Strict
from ssdiff_trt.runtime.files import atomic_write, json_of, reading

Result = TypeVar("Result")


class Outcome(Strict, Generic[Result]):
    """The result of a piece of the check, or the error that ended it and what was found before."""

    seconds: float
    """Time it took."""
    error: str | None = None
    warnings: tuple[str, ...] = ()
    result: Result | None = None


class Gpu(Strict):
    """A GPU, as CUDA describes it."""

    name: str
    sm: str
    """Compute capability, such as sm90."""
    driver: int
    """Highest version of CUDA that the driver supports, such as 13000 for 13.0."""
    memory_bytes: int
    package: str
    """Python package through which CUDA is called."""


class Machine(Strict):
    """The machine, and what is checked there."""

    environment: Environment
    gpu: Gpu | None
    no_gpu: str | None = None
    """Why no GPU can be used, as a clause."""
    unusable: dict[str, str]
    """Backends that cannot be used there, each with the reason."""
    bundle: str
    bundle_sha256: str


class Engine(Strict):
    """A backend that was opened, and the memory of the GPU around that."""

    backend: str
    """The backend's description of itself."""
    open_seconds: float
    build_seconds: float | None
    """Time it took to build the engine; None for a backend without engines."""
    layers: dict[str, int]
    """Outputs of the engine's layers by type, and fused attention layers."""
    free_before: int
    """Free memory before it was opened, bytes."""
    free_open: int
    free_closed: int


class Compared(Strict):
    """A backend compared with FP32 on the CPU, at each step."""

    backend: str
    parity: Parity
    faults: tuple[str, ...]
    """Deviations beyond the limits, a clause each."""


class Graphs(Strict):
    """What a backend gives with and without a CUDA graph, and for values that are not finite."""

    captured: bool | None
    """Whether the loop was captured as a CUDA graph; None for a backend that has none."""
    same_bytes: bool | None
    """Whether the graph gives the bytes that the loop gives."""
    keeps_nan: bool
    """Whether a NaN in PAN gives NaN in the image of its tile, and in no other image."""


class References(Strict):
    """PyTorch on the same GPU and the same tiles, and what bounds the time of a step."""

    lack: str | None = None
    """Why PyTorch was not measured, as a clause."""
    floors: Outcome[dict[str, float]] | None = None
    """Rates of matrix products and of memory, by name."""
    eager: Outcome[Benchmark] | None = None
    compiled: Outcome[Benchmark] | None = None


class Report(Strict):
    """All stages of a check; None for those that were not begun."""

    format: Literal[1] = 1
    environment: Outcome[Machine]
    engines: Outcome[dict[str, Outcome[Engine]]] | None = None
    parity: Outcome[dict[str, Outcome[Compared]]] | None = None
    graphs: Outcome[dict[str, Outcome[Graphs]]] | None = None
    latency: Outcome[Benchmark] | None = None
    throughput: Outcome[Benchmark] | None = None
    references: Outcome[References] | None = None


STAGES = tuple(Report.model_fields)[1:]
"""Stages in their order; each is a field of :class:`Report`."""


def faults(report: Report) -> Iterator[str]:
    """What was not measured, failed or is wrong, a line each."""
    for stage in STAGES:
        outcome: Outcome[Any] | None = getattr(report, stage)
        if outcome is None:
            yield f"{stage}: not begun"
        else:
            if outcome.error is not None:
                yield f"{stage}: {outcome.error}"
            for name, part in _parts(outcome.result):
                if part.error is not None:
                    yield f"{stage}, {name}: {part.error}"
                elif isinstance(part.result, Compared):
                    yield from (f"{stage}, {name}: {fault}" for fault in part.result.faults)
                elif isinstance(part.result, Graphs):
                    yield from (f"{stage}, {name}: {fault}" for fault in _of_graphs(part.result))


def _parts(result: Any) -> Iterator[tuple[str, Outcome[Any]]]:
    """The outcomes that a result is made of."""
    parts = vars(result) if isinstance(result, References) else result
    if isinstance(parts, dict):
        yield from ((name, part) for name, part in parts.items() if isinstance(part, Outcome))


def _of_graphs(graphs: Graphs) -> Iterator[str]:
    if graphs.captured is False:
        yield "no CUDA graph could be captured"
    if graphs.same_bytes is False:
        yield "the CUDA graph and the loop give different bytes"
    if not graphs.keeps_nan:
        yield "a NaN in PAN does not give NaN in the image of its tile alone"


def write(path: Path, content: Strict) -> None:
    """Write a result; NaN and infinity stay what they are, which pydantic's own JSON lacks."""
    text = json.dumps(content.model_dump(mode="json"), indent=1)
    with atomic_write(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read the report of a check.

    Raises:
        SSDiffError: if the file cannot be read or is not a report.
    """
    remedy = "give the report.json that make gpu-check wrote, unchanged"
    with reading(f"{path} cannot be read", remedy):
        text = path.read_bytes()
    with reading(f"{path} is not a report of the GPU check", remedy):
        return Report.model_validate(json_of(text))


def merged(folder: Path) -> Report:
    """The report of the stages whose files are in a folder.

    Raises:
        SSDiffError: if a file is not the result of its stage.
    """
    remedy = "delete it, and the stage runs again"
    stages: dict[str, Any] = {}
    for stage in STAGES:
        path = folder / f"{stage}.json"
        if path.exists():
            with reading(f"{path} cannot be read", remedy):
                stages[stage] = json.loads(path.read_bytes())
    with reading(f"A result in {folder} is not that of its stage", remedy):
        return Report.model_validate(stages)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Check that FILES are reports of the GPU check, and print what each of them shows."""
    for path in files:
        report = read_report(path)
        machine = report.environment.result
        gpu = machine.gpu.name if machine and machine.gpu else "no GPU"
        click.echo(f"{path}: a report on {gpu}")
        for fault in faults(report):
            click.echo(f"  {fault}")


if __name__ == "__main__":
    run(main, "gpu-report")
