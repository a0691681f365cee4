"""Pictures of programs in the documents: ``doctor.png``, ``qgis-dialog.png``, ``qgis-result.png``.

python -m benchmarks.screens FOLDER [-o docs]

Those of QGIS need ``qgis`` and ``xvfb-run``. The scene is the example, of which a corner is empty.
The folder is made, and its name is in a picture, such as ``/data``; QGIS marks what is in ``/tmp``
as temporary.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import rasterio
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.output import output_option
from ssdiff_trt.runtime.interpolator import RATIO

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("ssdiff-trt")
EMPTY = 40
"""Rows and columns of the corner of MS that is empty, a triangle."""
SETTINGS = """
[PythonPlugins]
processing=true
ssdiff_trt=true

[qgis]
checkVersion=false
"""
IN_QGIS = """
import os, sys, traceback
import processing
from qgis.core import QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtWidgets import QDockWidget, QToolBar
from qgis.utils import iface

project, window = QgsProject.instance(), iface.mainWindow()

def end_with(*error):
    traceback.print_exception(*error)
    os._exit(1)

sys.excepthook = end_with  # QGIS shows a window instead

def soon(seconds, step):
    QTimer.singleShot(1000 * seconds, step)

def fill():
    global dialog
    for name in ("ms", "pan"):
        project.addMapLayer(QgsRasterLayer(name + ".tif", name))
    values = {name.upper(): project.mapLayersByName(name)[0].id() for name in ("pan", "ms")}
    values["MORE"] = "--full-scale 10000 --nodata 0"
    values["OUTPUT"] = os.path.abspath("sharp.tif")
    dialog = processing.createAlgorithmDialog("ssdiff_trt:pansharpen", values)
    dialog.resize(860, 500)
    dialog.show()
    soon(2, start)

def start():
    dialog.grab().save("qgis-dialog.png")
    dialog.runAlgorithm()
    soon(1, wait)

def wait():
    found = [layer for layer in project.mapLayers().values() if layer.name() not in ("pan", "ms")]
    if not found:
        return soon(1, wait)
    dialog.close()
    for part in window.findChildren(QDockWidget) + window.findChildren(QToolBar):
        part.setVisible(part.objectName() in ("Layers", "mMapNavToolBar"))
    for node in project.layerTreeRoot().findLayers():
        node.setItemVisibilityChecked(node.layer() is found[0])
        node.setExpanded(node.layer() is found[0])
    iface.messageBar().clearWidgets()
    window.statusBar().hide()
    window.resize(880, 600)
    iface.setActiveLayer(found[0])
    soon(2, iface.zoomToActiveLayer)
    soon(6, end)

def end():
    window.grab().save("qgis-result.png")
    os._exit(0)

soon(3, fill)
"""
"""Runs in QGIS, in the folder of the scene."""


def draw_doctor(path: Path) -> None:
    """What ``ssdiff-trt doctor`` prints here, with the folder of the user as ``~``."""
    done = subprocess.run([COMMAND, "doctor"], stdout=subprocess.PIPE, text=True, check=True)
    text = "$ ssdiff-trt doctor\n" + done.stdout.replace(str(Path.home()), "~").rstrip()
    figure = Figure(facecolor="#1e2329")
    figure.text(0, 0, text, family="monospace", fontsize=9, linespacing=1.4, color="#e4e8ec")
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.15)


def make_scene(folder: Path) -> None:
    """The example with an empty corner."""
    for name, factor in (("pan", RATIO), ("ms", 1)):
        with rasterio.open(ROOT / "examples" / "sentinel2" / f"{name}.tif") as file:
            pixels, profile = file.read(), file.profile
            names = file.descriptions
        rows, cols = np.indices(pixels.shape[1:]) // factor
        pixels[:, rows + cols < EMPTY] = 0
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(pixels)
            file.descriptions = names


def draw_qgis(folder: Path) -> None:
    """The dialog of the algorithm, and its result in the window of QGIS, as PNG in a folder."""
    profile = folder / "profiles" / "default" / "QGIS"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "QGIS3.ini").write_text(SETTINGS)
    (folder / "in_qgis.py").write_text(IN_QGIS)
    words = [
        "xvfb-run",
        "-a",
        "-s",
        "-screen 0 1400x900x24",
        "qgis",
        "--nologo",
        "--noversioncheck",
    ]
    words += ["--profiles-path", str(folder), "--code", "in_qgis.py"]
    environment = {
        "HOME": str(folder),
        "PATH": "/usr/bin:/bin",  # where QGIS looks for its Python
        "QGIS_PLUGINPATH": str(ROOT / "qgis"),
        "SSDIFF_TRT_COMMAND": str(COMMAND),
        "XDG_RUNTIME_DIR": str(folder),
    }
    limits = {name: value for name, value in os.environ.items() if name.startswith("OMP_")}
    subprocess.run(words, cwd=folder, env=environment | limits, check=True, timeout=300)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@output_option
def main(folder: Path, output: Path) -> None:
    """Draw the pictures."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_scene(folder)
    draw_doctor(folder / "doctor.png")
    draw_qgis(folder)
    for name in ("doctor", "qgis-dialog", "qgis-result"):
        with Image.open(folder / f"{name}.png") as image:
            few = image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
        few.save(output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
