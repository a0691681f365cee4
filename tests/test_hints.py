"""Messages that say what to install: one spelling, and extras that exist."""

from __future__ import annotations

import ast
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from ssdiff_trt.cli import main
from ssdiff_trt.runtime import doctor
from ssdiff_trt.runtime.errors import install

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("runtime", "ssdiff_ref", "calibration", "export", "ssdiff_trt")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
OF_OTHERS = re.compile(r"pip install (--force-reinstall rasterio|'cuda-bindings)")
"""Packages that no extra brings: the file formats of rasterio's wheels; CUDA without TensorRT."""
EXTRAS = set(metadata("ssdiff-trt").get_all("Provides-Extra") or ())


def strings(path: Path) -> list[str]:
    """Texts of a module, those of its f-strings included."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and node.value is not ... and isinstance(node.value, str)
    ]


def test_the_hint_is_a_command_of_pip_that_works_in_any_folder():
    assert install("cpu") == "pip install 'ssdiff-trt[cpu]'"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_has_a_hint_of_its_own(path):
    for text in strings(path):
        if "pip install" in text and path.name != "errors.py":
            assert OF_OTHERS.search(text), text


def test_every_extra_that_a_hint_names_exists():
    named = {extra for _, extra in doctor._CANDIDATES.values()}
    named |= {extra for extra, _ in doctor._OPTIONAL.values()}
    named |= {*main._EXTRAS.values(), *main._TRAINING.values()}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "install":
                named |= {word.value for word in node.args if isinstance(word, ast.Constant)}
    assert {"cpu", "xarray", "debug"} <= named <= EXTRAS
