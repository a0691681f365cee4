"""Numbers in documents, and the reports that they come from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d[\d,]*)?\.?\d+")


def page_of(name: str) -> Path:
    """The file of a page of the documents, or of the README."""
    return ROOT / ("README.md" if name == "README" else f"docs/{name}.md")


@cache
def report(name: str) -> Any:
    """What a script wrote to a file of the documents."""
    return json.loads((ROOT / f"docs/{name}.json").read_text())


@cache
def manifest(bundle: str) -> Any:
    """What the export of a shipped bundle measured."""
    return json.loads((ROOT / f"runtime/bundles/{bundle}.ssdiff/manifest.json").read_text())


def comes_from(shown: Sequence[str], written: Sequence[str]) -> bool:
    """Whether each number shown is one of those written, rounded; each is used once."""
    left = [float(number) for number in written]
    for number in shown:
        half_a_digit = 0.5 * 10.0 ** -len(number.partition(".")[2])
        for other in left:
            if abs(other - float(number)) <= half_a_digit * 1.001:
                left.remove(other)
                break
        else:
            return False
    return True
