"""The table of latency on edge GPUs, from the reports that users sent.

    python -m benchmarks.gpu.edge     # prints the table of docs/edge.md

Reports lie in ``docs/edge/``, as :mod:`benchmarks.gpu.report` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.report import Report, read_report
from ssdiff_trt.runtime.benchmark.results import Benchmark
from ssdiff_trt.runtime.benchmark.statistics import percentile
from ssdiff_trt.runtime.benchmark.tables import number

REPORTS = Path(__file__).parents[2] / "docs/edge"
JETPACK6 = "make gpu-pack PACK='--python 3.10 --machine aarch64'"
JETPACK7 = "make gpu-pack PACK='--python 3.12 --machine aarch64'"
DEVICES = {
    "Jetson Orin Nano": (r"Orin Nano", JETPACK6),
    "Jetson Orin NX": (r"Orin NX", JETPACK6),
    "Jetson AGX Orin": (r"AGX Orin", JETPACK6),
    "Jetson Thor": (r"Thor", JETPACK7),
    "RTX laptop": (r"RTX.*Laptop", "make gpu-check"),
    "T4": (r"\bT4\b", "make gpu-check"),
    "L4": (r"\bL4\b", "make gpu-check"),
}
"""Devices, each with a pattern of the names of its board and GPU, and the command for it."""
HEAD = (
    "device",
    "backend",
    "1 tile, 1 step, ms",
    "1 tile, 10 steps, ms",
    "patch-steps/s",
    "power mode",
)


def table(reports: Sequence[Report]) -> list[str]:
    """Lines of the table in Markdown: median latency and highest throughput of each backend."""
    rows: list[Sequence[str]] = [HEAD, ["---"] * len(HEAD)]
    left = list(reports)
    for device, (pattern, command) in DEVICES.items():
        own = [report for report in left if re.search(pattern, _names(report))]
        left = [report for report in left if report not in own]
        measured = [row for report in own for row in _rows(device, report)]
        rows += measured or [(device, f"none yet: `{command}`", *[""] * 4)]
    for report in left:
        rows += _rows(_names(report), report)
    return [f"| {' | '.join(row)} |".replace("  |", " |") for row in rows]


def _names(report: Report) -> str:
    """Names of board and GPU."""
    machine = report.environment.result
    if machine is None:
        return ""
    return f"{machine.environment.processor}, {machine.gpu.name if machine.gpu else 'no GPU'}"


def _rows(device: str, report: Report) -> Iterator[tuple[str, ...]]:
    latency = report.latency.result if report.latency else None
    if latency is None:
        return
    throughput = report.throughput.result if report.throughput else None
    for case in latency.cases:
        yield (
            device,
            case.candidate,
            number(percentile(case.latencies(1), 50)),
            number(percentile(case.latencies(10), 50)),
            number(_rate(throughput, case.candidate)),
            latency.environment.power_mode or "",
        )


def _rate(benchmark: Benchmark | None, candidate: str) -> float | None:
    """Highest throughput of a candidate over its batches, patch-steps per second."""
    cases = benchmark.cases if benchmark else ()
    return max((c.tiles_per_second(1) for c in cases if c.candidate == candidate), default=None)


def committed() -> list[Report]:
    """The reports in the repository."""
    return [read_report(path) for path in sorted(REPORTS.glob("*.json"))]


if __name__ == "__main__":
    print("\n".join(table(committed())))
