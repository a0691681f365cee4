"""Tables of a benchmark, and of its comparison with an older one, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from rich import box
from rich.table import Table

from ssdiff_trt.runtime.benchmark.environment import cpu_load_warning, differences
from ssdiff_trt.runtime.benchmark.results import Benchmark, Case, Observed
from ssdiff_trt.runtime.benchmark.statistics import Rounds, percentile, ratio
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.progress import print_text

_BASELINE = "reference fp32"
"""Candidate that speed-ups are relative to, if it was measured."""
_MISSING = "-"
"""Table cell of a value that was not measured."""


def print_tables(benchmark: Benchmark) -> None:
    """Print a benchmark on standard output."""
    rows = [(case, steps) for case in benchmark.cases for steps in benchmark.settings.steps]
    print_text(_latency(benchmark, rows))
    if any(case.device_latencies(steps) for case, steps in rows):
        print_text(_device_latency(rows))
    print_text(_throughput(benchmark, rows))
    print_text(_processes(benchmark))
    if benchmark.scenes:
        print_text(_scenes(benchmark))
    for line in _remarks(benchmark, rows):
        print_text(line)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("candidate", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def number(value: float | None) -> str:
    """A value with three significant digits, or "-" for None."""
    if value is None:
        return _MISSING
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percentiles(rounds: Rounds) -> list[str]:
    return [number(percentile(rounds, percent)) for percent in (50, 95, 99)]


def _runs(rounds: Rounds) -> str:
    return str(sum(map(len, rounds)))


def _latency(benchmark: Benchmark, rows: list[tuple[Case, int]]) -> Table:
    baselines = {case.batch: case for case in benchmark.cases if case.candidate == _BASELINE}
    table = _table(
        "Latency of a batch in ms, host to host",
        *("batch", "steps", "p50", "p95", "p99", "runs"),
        *(["speed-up vs reference"] if baselines else []),
    )
    for case, steps in rows:
        rounds = case.latencies(steps)
        speed_up = []
        if baselines:
            baseline = baselines.get(case.batch, case)
            speed_up = ["" if baseline is case else str(ratio(baseline.latencies(steps), rounds))]
        cells = (*_percentiles(rounds), _runs(rounds), *speed_up)
        table.add_row(case.candidate, str(case.batch), str(steps), *cells)
    return table


def _device_latency(rows: list[tuple[Case, int]]) -> Table:
    table = _table(
        "GPU time of a batch in ms, by CUDA events", "batch", "steps", "p50", "p95", "p99", "runs"
    )
    for case, steps in rows:
        if rounds := case.device_latencies(steps):
            cells = (*_percentiles(rounds), _runs(rounds))
            table.add_row(case.candidate, str(case.batch), str(steps), *cells)
    return table


def _throughput(benchmark: Benchmark, rows: list[tuple[Case, int]]) -> Table:
    has_energy = any(case.joules_per_tile(steps) is not None for case, steps in rows)
    table = _table(
        "Throughput of a stream of batches",
        *("batch", "steps", "patch-steps/s", "Mpixel/s"),
        *(["J/patch-step", "W"] if has_energy else []),
    )
    for case, steps in rows:
        rate, joules = case.tiles_per_second(steps), case.joules_per_tile(steps)
        per_step = None if joules is None else joules / steps
        energy = (per_step, case.watts(steps)) if has_energy else ()
        table.add_row(
            case.candidate,
            str(case.batch),
            str(steps),
            *map(number, (rate * steps, rate * benchmark.tile**2 / 1e6, *energy)),
        )
    return table


def _processes(benchmark: Benchmark) -> Table:
    """Load times, as medians over rounds, and peak memory, as the largest of all rounds."""
    built = any(opened.build_seconds is not None for opened in benchmark.candidates.values())
    on_gpu = any(opened.device == "gpu" for opened in benchmark.candidates.values())
    table = _table(
        "Loading in s, and peak memory in MB",
        *("batch", "load", "first tile"),
        *(["engine build"] if built else []),
        "host",
        *(["GPU"] if on_gpu else []),
    )
    for case in benchmark.cases:
        device = [p.device_bytes for p in case.processes if p.device_bytes is not None]
        cells = [
            median(process.load_seconds for process in case.processes),
            median(process.first_tile_seconds for process in case.processes),
            *([benchmark.candidates[case.candidate].build_seconds] if built else []),
            max(process.host_bytes for process in case.processes) / 1e6,
            *([max(device) / 1e6 if device else None] if on_gpu else []),
        ]
        table.add_row(case.candidate, str(case.batch), *map(number, cells))
    return table


def _scenes(benchmark: Benchmark) -> Table:
    first = benchmark.scenes[0].runs[0]
    table = _table(
        f"Scene from file to file: {first.pixels / 1e6:.3g} Mpixel, "
        f"{counted(first.tiles, 'tile')}, {counted(first.steps, 'step')}",
        *("s (range)", "Mpixel/s", "outside network", "load s", "host MB"),
    )
    for scene in benchmark.scenes:
        seconds = [run.seconds for run in scene.runs]
        outside = median(1 - run.network_seconds / run.seconds for run in scene.runs)
        table.add_row(
            scene.candidate,
            f"{number(median(seconds))} ({number(min(seconds))}-{number(max(seconds))})",
            number(first.pixels / median(seconds) / 1e6),
            f"{outside:.0%}",
            number(median(run.load_seconds for run in scene.runs)),
            number(max(run.host_bytes for run in scene.runs) / 1e6),
        )
    return table


def _remarks(benchmark: Benchmark, rows: list[tuple[Case, int]]) -> Iterator[str]:
    """Lines below the tables: backends, warnings and the machine."""
    for name, opened in benchmark.candidates.items():
        yield f"{name}: {opened.backend}"
        observations = [
            sample.observed
            for case, steps in rows
            if case.candidate == name
            for sample in (process.samples[steps] for process in case.processes)
            if sample.observed is not None
        ]
        yield f"  {_state(observations)}"
    for case, steps in rows:
        watts, budget = case.watts(steps), benchmark.settings.budget_watts
        if watts is not None and budget is not None and watts > budget:
            yield (
                f"OVER THE BUDGET of {budget:g} W: {case.candidate}, batch {case.batch}, "
                f"{counted(steps, 'step')} used {watts:.1f} W"
            )
    if any(percentile(case.latencies(steps), 99) is None for case, steps in rows):
        yield "p95 needs 20 runs and p99 needs 100, else -; raise --repeats or --seconds."
    machine, mode = benchmark.environment, benchmark.environment.power_mode
    yield (
        f"{machine.gpu or machine.processor}, {counted(machine.cores, 'core')}"
        f"{f', {mode}' if mode else ''}; {machine.system}; "
        f"{counted(benchmark.settings.rounds, 'round')} of fresh processes"
    )
    if benchmark.others_cores is not None:
        yield f"Other programs used {benchmark.others_cores:.2f} cores during the benchmark."


def _state(observations: list[Observed]) -> str:
    """Clock rate, temperature, throttling, and a note on what the platform does not report."""
    mhz = [one.mhz for one in observations if one.mhz is not None]
    celsius = [one.celsius for one in observations if one.celsius is not None]
    throttled = [one for one in observations if one.throttled]
    reasons = sorted({reason for one in throttled for reason in one.throttled})
    parts = [
        f"{min(mhz):.0f} to {max(mhz):.0f} MHz" if mhz else "clock rate: not available here",
        *([f"up to {max(celsius):.0f} degrees C"] if celsius else []),
        *(
            [
                f"THROTTLED in {len(throttled)} of {len(observations)} measurements: "
                f"{', '.join(reasons)}"
            ]
            if throttled
            else []
        ),
        *(
            []
            if any(one.joules is not None for one in observations)
            else ["energy: not available here"]
        ),
    ]
    gauge = f" ({observations[0].gauge})" if mhz or celsius else ""
    return "; ".join(parts) + gauge


def print_comparison(current: Benchmark, older: Benchmark) -> None:
    """Print median latencies beside those of an older benchmark, and how the set-ups differ."""
    table = _table(
        f"Median latency in ms, compared with {older.created}",
        *("batch", "steps", "before", "now", "now / before (95 %)", ""),
    )
    older_cases = {(case.candidate, case.batch): case for case in older.cases}
    for case in current.cases:
        older_case = older_cases.get((case.candidate, case.batch))
        for steps in current.settings.steps:
            if older_case is None or steps not in older.settings.steps:
                continue
            now, before = case.latencies(steps), older_case.latencies(steps)
            change = ratio(now, before)
            verdict = "slower" if change.value > 1 else "faster"
            table.add_row(
                case.candidate,
                str(case.batch),
                str(steps),
                number(percentile(before, 50)),
                number(percentile(now, 50)),
                str(change),
                verdict if change.significant else "not significant",
            )
    if table.row_count:
        print_text(table)
    else:
        print_text("The older benchmark has none of these candidates, batches and steps.")
    clauses = differences(current.environment, older.environment)
    if current.bundle_sha256 != older.bundle_sha256:
        clauses.insert(0, f"bundle is {current.bundle}, was {older.bundle}, with other files")
    if current.settings.threads != older.settings.threads:
        clauses.append(f"threads is {current.settings.threads}, was {older.settings.threads}")
    if any(
        cpu_load_warning(one.others_cores, one.environment.cores, "") for one in (current, older)
    ):
        clauses.append(
            f"other programs used {number(current.others_cores)} cores, "
            f"was {number(older.others_cores)}"
        )
    for clause in clauses:
        print_text(f"Differs: {clause}")
    print_text(_drift(current, older))


def _drift(current: Benchmark, older: Benchmark) -> str:
    """What a comparison of benchmarks of different times cannot show, and what helps."""
    changes = []
    older_cases = {case.batch: case for case in older.cases if case.candidate == _BASELINE}
    for case in current.cases:
        if case.candidate == _BASELINE and case.batch in older_cases:
            for steps in set(current.settings.steps) & set(older.settings.steps):
                change = ratio(case.latencies(steps), older_cases[case.batch].latencies(steps))
                changes.append(f"{change} at batch {case.batch}, {counted(steps, 'step')}")
    known = (
        f"The PyTorch reference, which hardly changes between versions, took {'; '.join(changes)} "
        "times as long as before: that is the machine or its packages."
        if changes
        else "With --reference in both benchmarks its change would show how much that is."
    )
    return (
        "The two were measured at different times: a machine that has become warmer, busier or "
        f"differently clocked looks like slower software. {known} To be sure, measure both "
        "versions in turn, several times."
    )
