"""Messages: what to install, in one spelling, and one sentence without the errors behind it."""

from __future__ import annotations

import ast
import re
import traceback
from importlib.metadata import metadata
from pathlib import Path

import pytest

from ssdiff_trt import InputError, OutputError, pansharpen
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


def test_the_doctor_and_a_command_without_a_package_name_the_same_extra():
    for package, (extra, _) in doctor._OPTIONAL.items():
        assert main._EXTRAS.get(package, extra) == extra


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_error_in_place_of_another_says_whether_that_is_shown(path):
    """Else Python shows both, with a line that reads like a second fault."""
    for handler in ast.walk(ast.parse(path.read_text())):
        if isinstance(handler, ast.ExceptHandler):
            for node in ast.walk(handler):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    assert node.cause is not None, f"{path}:{node.lineno} has no from"


def test_a_file_that_is_not_there_is_one_error(tmp_path):
    with pytest.raises(
        InputError, match=r"The PAN image cannot be read .*check the path"
    ) as raised:
        pansharpen(tmp_path / "a.tif", tmp_path / "b.tif")
    text = "".join(traceback.format_exception(raised.value))
    assert text.count("Traceback") == 1


def test_a_folder_that_cannot_be_made_is_one_error(make_pair, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as raised:
        pansharpen(*make_pair(), tmp_path / "file" / "out.tif")
    assert "".join(traceback.format_exception(raised.value)).count("Traceback") == 1
