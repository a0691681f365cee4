"""The rooms of the code: which may import which, and what a run on a small machine loads.

A room is a folder of a package, or a module that stands alone in it. Rooms of one floor do not know
each other; a room imports from the floors below. So no room can be part of a circle.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "ssdiff_trt.runtime": ROOT / "runtime",
    "ssdiff_ref": ROOT / "ssdiff_ref",
    "ssdiff_trt.calibration": ROOT / "calibration",
    "ssdiff_trt.export": ROOT / "export",
    "ssdiff_trt": ROOT / "ssdiff_trt",
}
"""Packages, from the ground up, each with its folder."""
FLOORS = {
    "ssdiff_trt.runtime": [
        {"errors", "interpolator", "pipeline"},
        {"arguments", "scratch"},
        {"cpus"},
        {"files", "memory", "options", "progress", "sensors", "sources", "user_folders"},
        {"journal", "uploads"},
        {"consistency", "raster", "schedule"},
        {"bundle", "tiles"},
        {"arrays", "backends", "plan"},
        {"blocks", "data_arrays", "estimate", "parity", "quicklook"},
        {"networks", "pairs", "pansharpen"},
        {"cluster"},
        {"pansharpener"},
        {"benchmark", "scenes"},
        {"doctor"},
    ],
    "ssdiff_ref": [
        {"network", "quality"},
        {"protocol"},
        {"classical", "training"},
        {"evaluation", "report"},
    ],
}
"""Rooms of the packages that have several, from the ground up."""
THIRD_PARTY = {"torch": {"ssdiff_ref", "ssdiff_trt.export"}, "onnx": {"ssdiff_trt.calibration"}}
"""Who may import what not every machine has; export may import both."""


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Every module of a package, by its dotted name."""
    folder = FOLDERS[package]
    for path in sorted(folder.rglob("*.py")):
        if path.is_relative_to(folder / "cli") or "runtime" not in path.relative_to(folder).parts:
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *parts]).removesuffix(".__init__"), path


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at once or later."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def package_of(name: str) -> str | None:
    """The package of ours that a dotted name lies in."""
    inside = [package for package in FOLDERS if f"{name}.".startswith(f"{package}.")]
    return max(inside, key=len, default=None)


def room_of(name: str, package: str) -> str:
    """The room of a package that a dotted name lies in."""
    return name.removeprefix(package).lstrip(".").partition(".")[0]


@pytest.mark.parametrize("package", FOLDERS)
def test_a_package_imports_only_those_below_it(package):
    order = list(FOLDERS)
    for name, path in modules(package):
        for other in imported(path):
            if (theirs := package_of(other)) is not None:
                assert order.index(theirs) <= order.index(package), f"{name} imports {other}"
            top = other.partition(".")[0]
            if top in THIRD_PARTY and package != "ssdiff_trt.export":
                assert package in THIRD_PARTY[top], f"{name} imports {other}"


@pytest.mark.parametrize("package", FLOORS)
def test_a_room_imports_only_those_on_the_floors_below(package):
    floor = {room: level for level, rooms in enumerate(FLOORS[package]) for room in rooms}
    seen = set()
    for name, path in modules(package):
        room = room_of(name, package)
        if not room:
            continue
        assert room in floor, f"{name} is in no room; give {room} a floor"
        seen.add(room)
        for other in imported(path):
            if package_of(other) == package and (theirs := room_of(other, package)) != room:
                assert floor[theirs] < floor[room], f"{name} imports {other}"
    assert seen == set(floor)


@pytest.mark.parametrize("package", ["ssdiff_trt.runtime", "ssdiff_ref", "ssdiff_trt.calibration"])
def test_no_string_names_a_package_above(package):
    above = list(FOLDERS)[list(FOLDERS).index(package) + 1 :]
    target = re.compile(
        r"(?:from |import )?([a-z_]+(?:\.[a-z_0-9]+)+)(?::\w+)?(?: import .*)?", re.DOTALL
    )
    for name, path in modules(package):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and (found := target.fullmatch(text)):
                assert package_of(found[1]) not in above, f"{name}: {text!r}"


def test_neither_documents_nor_tests_import_each_other():
    for path in (ROOT / "docs").rglob("*.py"):
        pytest.fail(f"{path} is code; its place is benchmarks/")
    for folder in ("benchmarks", "examples", *(str(path) for path in FOLDERS.values())):
        for path in (ROOT / folder).rglob("*.py"):
            assert "tests" not in {name.partition(".")[0] for name in imported(path)}, path


def test_no_test_module_imports_another():
    for path in (ROOT / "tests").rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "tests":
                assert parts[1] in ("support", "fuzz", "mutants"), f"{path} imports {name}"


def test_a_run_loads_neither_torch_nor_onnx_nor_what_only_tests_need(make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    code = (
        "import sys; from ssdiff_trt import pansharpen\n"
        f"pansharpen({str(pan)!r}, {str(ms)!r}, {str(tmp_path / 'o.tif')!r})\n"
        "print({'torch', 'onnx', 'scipy', 'matplotlib', 'h5py', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def without(modules, *arguments):
    """Run ``ssdiff-trt`` in a process in which some modules cannot be imported."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
        f"sys.argv = ['ssdiff-trt', *{[str(word) for word in arguments]!r}]\n"
        "from ssdiff_trt.cli.trt import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


EXPORTS = ["torch", "onnx", "onnxscript", "safetensors", "ssdiff_ref", "ssdiff_trt.export"]


def test_engines_are_built_and_runs_are_made_without_what_exports(make_pair, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "step.plan"
    options = "--backend=tensorrt-rtx", "--gpu=sm86", "--batch=2", f"--engine-file={engine}"
    done = without(EXPORTS, "build", "generic4", *options)
    assert done.returncode == 0, done.stderr
    assert '"precision": "fp16"' in engine.with_suffix(".json").read_text()
    done = without(EXPORTS, "run", *make_pair(64, 64), "-o", tmp_path / "o.tif")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.tif").stat().st_size > 0
