"""Telling what a benchmark found."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from ssdiff_trt.runtime.benchmark.environment import differences, not_idle
from ssdiff_trt.runtime.benchmark.results import Benchmark, Case, Observed
from ssdiff_trt.runtime.benchmark.statistics import Rounds, percentile, ratio
from ssdiff_trt.runtime.errors import counted

_WIDTH = 80
_BASE = "reference fp32"
"""The contender that others are held against, where it is one."""
_NOT_TOLD = "-"


def print_tables(found: Benchmark) -> None:
    """Print a benchmark on standard output."""
    console = Console(width=_WIDTH, highlight=False)
    rows = [(case, steps) for case in found.cases for steps in found.settings.steps]
    console.print(_latency(found, rows))
    if any(case.device_latencies(steps) for case, steps in rows):
        console.print(_device_latency(rows))
    console.print(_throughput(found, rows))
    console.print(_processes(found))
    if found.scenes:
        console.print(_scenes(found))
    for line in _remarks(found, rows):
        console.print(line)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("contender", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return _NOT_TOLD
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percentiles(rounds: Rounds) -> list[str]:
    return [number(percentile(rounds, percent)) for percent in (50, 95, 99)]


def _runs(rounds: Rounds) -> str:
    return str(sum(map(len, rounds)))


def _latency(found: Benchmark, rows: list[tuple[Case, int]]) -> Table:
    base = {case.batch: case for case in found.cases if case.contender == _BASE}
    table = _table(
        "Latency of a batch in ms, from the host and back",
        *("batch", "steps", "p50", "p95", "p99", "runs"),
        *(["faster than reference"] if base else []),
    )
    for case, steps in rows:
        rounds = case.latencies(steps)
        against = []
        if base:
            other = base.get(case.batch, case)
            against = ["" if other is case else str(ratio(other.latencies(steps), rounds))]
        cells = (*_percentiles(rounds), _runs(rounds), *against)
        table.add_row(case.contender, str(case.batch), str(steps), *cells)
    return table


def _device_latency(rows: list[tuple[Case, int]]) -> Table:
    table = _table(
        "On the GPU alone in ms, by CUDA events", "batch", "steps", "p50", "p95", "p99", "runs"
    )
    for case, steps in rows:
        if rounds := case.device_latencies(steps):
            cells = (*_percentiles(rounds), _runs(rounds))
            table.add_row(case.contender, str(case.batch), str(steps), *cells)
    return table


def _throughput(found: Benchmark, rows: list[tuple[Case, int]]) -> Table:
    told = any(case.joules_per_tile(steps) is not None for case, steps in rows)
    table = _table(
        "Throughput of a stream of batches",
        *("batch", "steps", "patch-steps/s", "Mpixel/s"),
        *(["J/patch-step", "W"] if told else []),
    )
    for case, steps in rows:
        rate, joules = case.tiles_per_second(steps), case.joules_per_tile(steps)
        energy = (None if joules is None else joules / steps, case.watts(steps)) if told else ()
        table.add_row(
            case.contender,
            str(case.batch),
            str(steps),
            *map(number, (rate * steps, rate * found.tile**2 / 1e6, *energy)),
        )
    return table


def _processes(found: Benchmark) -> Table:
    """Medians over rounds; of memory, the largest."""
    built = any(about.build_seconds is not None for about in found.contenders.values())
    on_gpu = any(about.device == "gpu" for about in found.contenders.values())
    table = _table(
        "Loading in s, and peak memory in MB",
        *("batch", "load", "first tile"),
        *(["engine build"] if built else []),
        "host",
        *(["GPU"] if on_gpu else []),
    )
    for case in found.cases:
        device = [p.device_bytes for p in case.processes if p.device_bytes is not None]
        cells = [
            median(process.load_seconds for process in case.processes),
            median(process.first_tile_seconds for process in case.processes),
            *([found.contenders[case.contender].build_seconds] if built else []),
            max(process.host_bytes for process in case.processes) / 1e6,
            *([max(device) / 1e6 if device else None] if on_gpu else []),
        ]
        table.add_row(case.contender, str(case.batch), *map(number, cells))
    return table


def _scenes(found: Benchmark) -> Table:
    one = found.scenes[0].runs[0]
    table = _table(
        f"The scene from file to file: {one.pixels / 1e6:.3g} Mpixel, {counted(one.tiles, 'tile')},"
        f" {counted(one.steps, 'step')}",
        *("s (range)", "Mpixel/s", "not in network", "load s", "host MB"),
    )
    for scene in found.scenes:
        seconds = [run.seconds for run in scene.runs]
        outside = median(1 - run.network_seconds / run.seconds for run in scene.runs)
        table.add_row(
            scene.contender,
            f"{number(median(seconds))} ({number(min(seconds))}-{number(max(seconds))})",
            number(one.pixels / median(seconds) / 1e6),
            f"{outside:.0%}",
            number(median(run.load_seconds for run in scene.runs)),
            number(max(run.host_bytes for run in scene.runs) / 1e6),
        )
    return table


def _remarks(found: Benchmark, rows: list[tuple[Case, int]]) -> Iterator[str]:
    """What has to be known to read the tables."""
    for name, about in found.contenders.items():
        yield f"{name}: {about.backend}"
        windows = [
            sample.observed
            for case, steps in rows
            if case.contender == name
            for sample in (process.samples[steps] for process in case.processes)
            if sample.observed is not None
        ]
        yield f"  {_state(windows)}"
    for case, steps in rows:
        watts, budget = case.watts(steps), found.settings.budget_watts
        if watts is not None and budget is not None and watts > budget:
            yield (
                f"BEYOND THE BUDGET of {budget:g} W: {case.contender}, batch {case.batch}, "
                f"{counted(steps, 'step')} took {watts:.1f} W"
            )
    if any(percentile(case.latencies(steps), 99) is None for case, steps in rows):
        yield "p95 takes 20 runs and p99 100, else - is shown; --repeats or --seconds gives more."
    machine, mode = found.environment, found.environment.power_mode
    yield (
        f"{machine.gpu or machine.processor}, {counted(machine.cores, 'core')}"
        f"{f', {mode}' if mode else ''}; {machine.system}; "
        f"{counted(found.settings.rounds, 'round')} of fresh processes"
    )
    others = found.others_cores
    if others is not None:
        yield f"Other programs kept {others:.2f} cores busy meanwhile."


def _state(windows: list[Observed]) -> str:
    """Clocks, temperature, throttling and power, or that they are not told."""
    mhz = [one.mhz for one in windows if one.mhz is not None]
    celsius = [one.celsius for one in windows if one.celsius is not None]
    throttled = [one for one in windows if one.throttled]
    reasons = sorted({reason for one in throttled for reason in one.throttled})
    parts = [
        f"{min(mhz):.0f} to {max(mhz):.0f} MHz" if mhz else "clocks: not told by this platform",
        *([f"up to {max(celsius):.0f} degrees C"] if celsius else []),
        *(
            [f"THROTTLED in {len(throttled)} of {len(windows)} windows: {', '.join(reasons)}"]
            if throttled
            else []
        ),
        *(
            []
            if any(one.joules is not None for one in windows)
            else ["energy: not told by this platform"]
        ),
    ]
    by = f" ({windows[0].gauge})" if mhz or celsius else ""
    return "; ".join(parts) + by


def print_comparison(now: Benchmark, before: Benchmark) -> None:
    """Print medians of latency beside those of an older benchmark, and in what they differ."""
    console = Console(width=_WIDTH, highlight=False)
    table = _table(
        f"Median latency in ms against that of {before.created}",
        *("batch", "steps", "was", "is", "is / was (95 %)", ""),
    )
    older = {(case.contender, case.batch): case for case in before.cases}
    for case in now.cases:
        other = older.get((case.contender, case.batch))
        for steps in now.settings.steps:
            if other is None or steps not in before.settings.steps:
                continue
            rounds, was = case.latencies(steps), other.latencies(steps)
            change = ratio(rounds, was)
            word = "slower" if change.value > 1 else "faster"
            table.add_row(
                case.contender,
                str(case.batch),
                str(steps),
                number(percentile(was, 50)),
                number(percentile(rounds, 50)),
                str(change),
                word if change.certain else "no difference seen",
            )
    if table.row_count:
        console.print(table)
    else:
        console.print("The older benchmark has none of these contenders, batches and steps.")
    clauses = differences(now.environment, before.environment)
    if now.bundle_sha256 != before.bundle_sha256:
        clauses.insert(0, f"bundle is {now.bundle}, was {before.bundle}, and not the same files")
    if now.settings.threads != before.settings.threads:
        clauses.append(f"threads is {now.settings.threads}, was {before.settings.threads}")
    busy = [number(one.others_cores) for one in (now, before)]
    if any(not_idle(one.others_cores, one.environment.cores, "") for one in (now, before)):
        clauses.append(f"other programs kept {busy[0]} cores busy now, and {busy[1]} then")
    for clause in clauses:
        console.print(f"Not the same: {clause}")
