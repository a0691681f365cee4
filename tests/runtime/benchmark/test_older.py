"""Older benchmarks that are damaged or made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssdiff_trt.runtime.benchmark.results import read_benchmark
from ssdiff_trt.runtime.errors import InputError

OLDER = Path(__file__).parents[3] / "tests" / "golden" / "bench-before.json"


def changed(*place, value=None):
    """The older benchmark with one value replaced, or taken out."""
    content = json.loads(OLDER.read_text())
    *path, last = place
    part = content
    for name in path:
        part = part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return json.dumps(content)


FIRST = ("cases", 0, "processes", 0, "samples", "1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "its values are nested too deep"),
        ('{"format": 2, "\\udcff": 1}', "surrogates not allowed"),
        (changed(*FIRST, "latency_ms", value=[]), "latency_ms: Tuple should have at least 1 item"),
        (changed(*FIRST, "latency_ms", value=[0.0]), "latency_ms.0: Input should be greater than"),
        (changed(*FIRST, "latency_ms", value=[float("nan")]), "latency_ms.0: Input should be"),
        (changed("cases", 0, "processes", value=[]), "cases.0.processes: Tuple should have at"),
        (changed(*FIRST), "has no measurements of 1 steps"),
        (changed("environment", "cores", value=10**400), "environment.cores: Input should be"),
    ],
)
def test_what_no_comparison_can_be_made_with_is_refused(tmp_path, text, reason):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"old.json is not a benchmark of .*{reason}.*bench --js"):
        read_benchmark(path)
