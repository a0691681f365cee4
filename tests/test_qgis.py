"""The QGIS plugin: its command without QGIS, and all of it by qgis_process where that is."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.support.rasters import read_raster, smooth, write_raster
from tests.support.scenes import MS_GRID

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "qgis" / "ssdiff_trt"
COMMAND = Path(sys.executable).with_name("ssdiff-trt")


@pytest.fixture
def command(monkeypatch):
    monkeypatch.delenv("SSDIFF_TRT_COMMAND", raising=False)
    spec = importlib.util.spec_from_file_location("command", PLUGIN / "command.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_reports_progress_and_messages(command, make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    done, messages = [], []
    words = [command.find(str(COMMAND)), "run", str(pan), str(ms), "-o", str(tmp_path / "o.tif")]
    assert command.run(words, done.append, messages.append, lambda: False)
    assert done[-1] == 100
    assert any("Full scale" in message for message in messages)
    assert read_raster(tmp_path / "o.tif").shape == (4, 64, 64)


def test_a_mistake_is_the_sentence_of_the_command(command, make_pair, tmp_path):
    pan, _ = make_pair(64, 64)
    words = [str(COMMAND), "run", str(pan), str(tmp_path / "none.tif")]
    with pytest.raises(command.CommandError, match="MS image cannot be read"):
        command.run(words, print, print, lambda: False)


def test_cancelling_ends_the_command_and_leaves_no_result(command, make_pair, tmp_path):
    pan, ms = make_pair(1024, 1024)
    output, began = tmp_path / "o.tif", time.monotonic()
    words = [str(COMMAND), "run", str(pan), str(ms), "-o", str(output), "--no-resume"]
    running = []
    assert not command.run(words, running.append, print, lambda: bool(running), 0.01)
    assert time.monotonic() - began < 60
    assert not output.exists()


def test_a_missing_command_says_how_to_get_it(command, monkeypatch):
    with pytest.raises(command.CommandError, match=r"was not found; install ssdiff-trt in a virt"):
        command.find("/nowhere/ssdiff-trt")
    monkeypatch.setenv("SSDIFF_TRT_COMMAND", str(COMMAND))
    assert command.find("/nowhere/ssdiff-trt") == str(COMMAND)


def test_variables_of_qgis_do_not_reach_the_command(command, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/usr")
    monkeypatch.setenv("QGIS_PREFIX_PATH", "/usr")
    assert not {"PYTHONHOME", "QGIS_PREFIX_PATH"} & set(command.environment())
    assert command.environment()["PATH"] == os.environ["PATH"]


def test_nothing_is_imported_that_only_one_version_of_qt_has():
    for path in PLUGIN.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith(("PyQt", "PySide", "sip"))], path


def without_scope(source):
    """Values of enumerations, or other capitalised names, that are taken from a class of QGIS or Qt
    itself; PyQt6 has them in the enumeration alone."""
    nodes = list(ast.walk(ast.parse(source)))
    scopes = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    return [
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id.startswith("Q")
        and node.attr[0].isupper()
        and id(node) not in scopes
    ]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a(Qt.AlignLeft)", ["Qt.AlignLeft"]),
        ("a(Qt.AlignmentFlag.AlignLeft)", []),
        ("flags = QgsRaster.RedBand | b.C", ["QgsRaster.RedBand"]),
        ("QgsApplication.processingRegistry()", []),
    ],
)
def test_values_without_the_scope_of_their_enumeration_are_found(source, found):
    assert without_scope(source) == found


def test_enumerations_are_scoped_as_qt_6_wants():
    for path in PLUGIN.glob("*.py"):
        assert without_scope(path.read_text()) == [], path


@pytest.fixture
def qgis_process(tmp_path, monkeypatch):
    # Debian's script adds an option that it does not know.
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if not program:
        pytest.skip("qgis_process is not installed")
    environment = os.environ | {
        "QGIS_PLUGINPATH": str(ROOT / "qgis"),
        "SSDIFF_TRT_COMMAND": str(COMMAND),
        "QT_QPA_PLATFORM": "offscreen",
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PATH": "/usr/bin:/bin",  # where QGIS looks for its Python
    }
    for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)

    def run(*words):
        words = [program, *words]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)

    enabled = run("plugins", "enable", "ssdiff_trt")
    assert enabled.returncode == 0, enabled.stderr
    return run


def test_qgis_fuses_a_pair_as_the_command_does(qgis_process, make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    output = tmp_path / "o.tif"
    words = [f"PAN={pan}", f"MS={ms}", f"OUTPUT={output}", "SHIFT=none", "MORE=--seed 3"]
    done = qgis_process("run", "ssdiff_trt:pansharpen", "--json", "--", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["results"]["OUTPUT"] == str(output)
    expected = tmp_path / "expected.tif"
    subprocess.run(
        [COMMAND, "run", pan, ms, "-o", expected, "--shift", "none", "--seed", "3"], check=True
    )
    np.testing.assert_array_equal(read_raster(output), read_raster(expected))


def test_the_log_has_a_command_for_a_shell(qgis_process, make_pair, tmp_path):
    pan, _ = make_pair(64, 64)
    words = [f"PAN={pan}", f"MS={pan}", f"OUTPUT={tmp_path / 'o 1.tif'}"]
    done = qgis_process("run", "ssdiff_trt:pansharpen", "--", *words)
    assert f"-o '{tmp_path / 'o 1.tif'}' --overwrite" in done.stdout


def test_qgis_shows_the_sentence_of_a_mistake(qgis_process, make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    words = [f"PAN={ms}", f"MS={pan}", f"OUTPUT={tmp_path / 'o.tif'}"]
    done = qgis_process("run", "ssdiff_trt:pansharpen", "--", *words)
    assert done.returncode != 0
    assert "so are the two swapped?" in done.stdout + done.stderr
    assert not (tmp_path / "o.tif").exists()


SHOW = """
import sys
sys.path.insert(0, sys.argv[1])
from qgis.core import QgsApplication, QgsMapRendererParallelJob, QgsMapSettings, QgsRasterLayer
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor
app = QgsApplication([], False)
app.initQgis()
from ssdiff_trt.colours import TrueColour
layer = QgsRasterLayer(sys.argv[2], "result")
TrueColour().postProcessLayer(layer, None, None)
renderer = layer.renderer()
print(renderer.redBand(), renderer.greenBand(), renderer.blueBand())
print(renderer.redContrastEnhancement() is not None)
settings = QgsMapSettings()
settings.setLayers([layer])
settings.setExtent(layer.extent())
settings.setOutputSize(QSize(64, 64))
settings.setBackgroundColor(QColor("magenta"))
job = QgsMapRendererParallelJob(settings)
job.start()
job.waitForFinished()
for place in (4, 60):
    print(job.renderedImage().pixelColor(place, place).name() == "#ff00ff")
"""


@pytest.mark.parametrize("by_mask", [False, True])
def test_a_loaded_result_is_in_true_colour_and_its_holes_are_transparent(
    by_mask, qgis_process, make_pair, tmp_path
):
    pan, _ = make_pair(64, 64)
    names = ("blue", "green", "red", "nir")
    pixels = smooth((4, 16, 16))
    pixels[:, :4, :4] = 0
    ms = write_raster(tmp_path / "m.tif", pixels, MS_GRID, descriptions=names)
    if by_mask:
        with rasterio.open(ms, "r+") as file:
            file.write_mask(pixels.any(axis=0))
    output, options = tmp_path / "o.tif", [] if by_mask else ["--nodata", "0"]
    subprocess.run([COMMAND, "run", pan, ms, "-o", output, "--shift", "none", *options], check=True)
    words = ["/usr/bin/python3", "-W", "ignore", "-c", SHOW, str(ROOT / "qgis"), str(output)]
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["3", "2", "1", "True", "True", "False"], done.stderr
