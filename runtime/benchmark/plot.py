"""A benchmark, drawn: latency and throughput against the batch."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np

from ssdiff_trt.runtime.benchmark.results import Benchmark
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.files import atomic_write


def draw(found: Benchmark, path: Path) -> None:
    """Draw it; a line for each contender, a style for each number of steps.

    Lines are medians. Bars of latency go from the 5th to the 95th percentile of all runs, those of
    throughput from the slowest round to the fastest.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    latency, throughput = figure.subplots(1, 2)
    for place, contender in enumerate(found.contenders):
        cases = [case for case in found.cases if case.contender == contender]
        batches = [case.batch for case in cases]
        for steps, style in zip(found.settings.steps, cycle(("-o", "--s", ":^", "-.v"))):
            looks = {
                "fmt": style,
                "color": f"C{place}",
                "markersize": 4,
                "capsize": 2,
                "label": f"{contender}, {counted(steps, 'step')}",
            }
            runs = [np.concatenate(case.latencies(steps)) for case in cases]
            low, middle, high = np.array([np.percentile(r, (5, 50, 95)) for r in runs]).T
            latency.errorbar(batches, middle, (middle - low, high - middle), **looks)
            rates = [np.array(case.rates(steps)) * steps for case in cases]
            low, middle, high = np.array([(r.min(), np.median(r), r.max()) for r in rates]).T
            throughput.errorbar(batches, middle, (middle - low, high - middle), **looks)
    latency.set(title="Latency of a batch", ylabel="ms, from the host and back")
    throughput.set(title="Throughput", ylabel="patch-steps/s")
    for panel in (latency, throughput):
        panel.set(xlabel="batch, tiles", xscale="log")
        panel.set_xticks(found.settings.batches, list(map(str, found.settings.batches)))
        panel.set_xticks([], minor=True)
        panel.grid(alpha=0.3)
    latency.set_yscale("log")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_major_formatter("{x:g}")
    latency.set_yticks([], minor=True)
    throughput.set_ylim(bottom=0)
    lines, names = latency.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=len(found.contenders), fontsize=8)
    machine = found.environment
    mode = f", {machine.power_mode}" if machine.power_mode else ""
    figure.suptitle(
        f"{found.bundle} on {machine.gpu or machine.processor}, "
        f"{counted(machine.cores, 'core')}{mode}",
        fontsize=10,
    )
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, dpi=110)
