"""What may import what, and what a run on a small machine loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "runtime": {"runtime"},
    "ssdiff_ref": {"ssdiff_ref", "runtime"},
    "calibration": {"calibration", "ssdiff_ref", "runtime", "onnx"},
    "export": {"export", "calibration", "ssdiff_ref", "runtime"},
}
PACKAGES = {"runtime", "ssdiff_ref", "export", "calibration", "torch", "onnx"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_below_them(package):
    torch = {"torch", "onnx"} if package in ("ssdiff_ref", "export") else set()
    allowed = ALLOWED[package] | torch
    for path in (ROOT / package).rglob("*.py"):
        if path.name != "cli.py":
            assert set(imported(path)) & PACKAGES <= allowed, path


def test_a_run_loads_neither_torch_nor_onnx_nor_what_only_tests_need(make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    code = (
        "import sys; from ssdiff_trt.runtime.pansharpen import pansharpen\n"
        f"pansharpen({str(pan)!r}, {str(ms)!r}, {str(tmp_path / 'o.tif')!r})\n"
        "print({'torch', 'onnx', 'scipy', 'matplotlib', 'h5py', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
