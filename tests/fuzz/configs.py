"""The user's configuration, and the configuration of a training."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.fuzz.mutation import damaged, replaced

USER = {
    "ssdiff-trt": {
        "run": {"full-scale": 10000, "co": ["COMPRESS=ZSTD"], "seed": 7, "quiet": True},
        "info": {"json": "out.json"},
    }
}
TRAINING = {
    "bands": 4,
    "seed": 1,
    "learning_rate": 0.001,
    "pan_response": [1.0, 1.0, 1.0, 1.0],
    "sources": [{"name": "a", "files": ["*.tif"], "bands": [1, 2], "decimations": [1, 2]}],
    "stages": [{"iterations": 10, "patch": 64, "batch": 2}],
}


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    of_user = bool(seed % 2)
    document: Any = USER if of_user else TRAINING
    for _ in range(chance.choice((0, 1, 1, 2))):
        document = replaced(document, chance)
    content = toml(document).encode("utf-8", "surrogatepass")
    if chance.random() < 0.4:
        content = damaged(content, chance)
    if chance.random() < 0.05:
        content += b"a = " + b"[" * chance.choice((50, 5000, 100_000))
    path = folder / ("config.toml" if of_user else "recipe.toml")
    path.write_bytes(content)
    if of_user:
        return ["ssdiff-trt", "info", *chance.choice(((), ("generic4",)))]
    return ["ssdiff-ref", "pack", "recipe.toml", "-o", "packed.npz"]


def toml(document: Any) -> str:
    """A document in TOML, as far as it can be; tables are written as inline tables."""
    if not isinstance(document, dict):
        return inline(document)
    return "".join(f"{json.dumps(name)} = {inline(value)}\n" for name, value in document.items())


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(n)} = {inline(v)}' for n, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)
