"""Plot of a benchmark: latency and throughput against batch size."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np

from ssdiff_trt.runtime.benchmark.results import Benchmark
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.files import atomic_write


def draw(benchmark: Benchmark, path: Path) -> None:
    """Write a plot with a colour for each candidate and a line style for each number of steps.

    Lines connect medians. Error bars of latency span the 5th to the 95th percentile of all runs,
    those of throughput the slowest to the fastest round.

    Args:
        benchmark: results to plot.
        path: file to write; its extension selects the image format.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    latency, throughput = figure.subplots(1, 2)
    for index, candidate in enumerate(benchmark.candidates):
        cases = [case for case in benchmark.cases if case.candidate == candidate]
        batches = [case.batch for case in cases]
        for steps, style in zip(benchmark.settings.steps, cycle(("-o", "--s", ":^", "-.v"))):
            format_options = {
                "fmt": style,
                "color": f"C{index}",
                "markersize": 4,
                "capsize": 2,
                "label": f"{candidate}, {counted(steps, 'step')}",
            }
            runs = [np.concatenate(case.latencies(steps)) for case in cases]
            low, middle, high = np.array([np.percentile(r, (5, 50, 95)) for r in runs]).T
            latency.errorbar(batches, middle, (middle - low, high - middle), **format_options)
            rates = [np.array(case.rates(steps)) * steps for case in cases]
            low, middle, high = np.array([(r.min(), np.median(r), r.max()) for r in rates]).T
            throughput.errorbar(batches, middle, (middle - low, high - middle), **format_options)
    latency.set(title="Latency of a batch", ylabel="ms, host to host")
    throughput.set(title="Throughput", ylabel="patch-steps/s")
    for panel in (latency, throughput):
        panel.set(xlabel="batch size, tiles", xscale="log")
        panel.set_xticks(benchmark.settings.batches, list(map(str, benchmark.settings.batches)))
        panel.set_xticks([], minor=True)
        panel.grid(alpha=0.3)
    latency.set_yscale("log")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_major_formatter("{x:g}")
    latency.set_yticks([], minor=True)
    throughput.set_ylim(bottom=0)
    lines, names = latency.get_legend_handles_labels()
    columns = len(benchmark.candidates)
    figure.legend(lines, names, loc="outside lower center", ncols=columns, fontsize=8)
    machine = benchmark.environment
    mode = f", {machine.power_mode}" if machine.power_mode else ""
    figure.suptitle(
        f"{benchmark.bundle} on {machine.gpu or machine.processor}, "
        f"{counted(machine.cores, 'core')}{mode}",
        fontsize=10,
    )
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, dpi=110)
