"""Older benchmarks to compare with, in JSON."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz.mutation import damaged, hostile, replaced

BENCH_BEFORE = Path(__file__).parents[2] / "tests" / "golden" / "bench-before.json"


@cache
def older() -> Any:
    return json.loads(BENCH_BEFORE.read_text())


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    document = older()
    for _ in range(chance.choice((0, 1, 1, 2, 8))):
        document = replaced(document, chance)
    if chance.random() < 0.1:
        document = hostile(chance)
    content = json.dumps(document).encode()
    if chance.random() < 0.3:
        content = damaged(content, chance)
    if chance.random() < 0.1:
        content = chance.choice((b"", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 9999, b"\xff\xfe"))
    if chance.random() < 0.05:
        (folder / "old.json").mkdir()
    else:
        (folder / "old.json").write_bytes(content)
    # Whatever the benchmark, nothing is measured.
    return ["ssdiff-trt", "bench", "missing.ssdiff", "--compare", "old.json"]
