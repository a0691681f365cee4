"""What is installed: every package, under names of its own, with the files that it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ssdiff_trt.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

IN_IMAGE = {
    "ld-linux",
    "libc",
    "libdl",
    "libgcc_s",
    "libm",
    "libpthread",
    "librt",
    "libstdc++",
    "libz",
}
"""Libraries of every Debian, the slim image of Python included, without their versions."""


def test_every_folder_with_code_is_a_package_of_the_wheel():
    mapped = {folder: name for name, folder in SETUPTOOLS["package-dir"].items()}
    found = set()
    for top in ("ssdiff_ref", "ssdiff_trt", *mapped):
        for path in (ROOT / top).rglob("__init__.py"):
            parts = path.parent.relative_to(ROOT).parts
            if parts[0] == "ssdiff_trt" and parts[1:2] and parts[1] in mapped:
                continue  # links of a developer's view
            found.add(".".join((mapped.get(parts[0], parts[0]), *parts[1:])))
    assert sorted(found) == sorted(SETUPTOOLS["packages"])


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel that is made from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_takes_no_generic_name_and_has_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ssdiff_ref", "ssdiff_trt"}
    for name in (
        "ssdiff_trt/py.typed",
        "ssdiff_trt/runtime/parity/sample.npz",
        "ssdiff_trt/runtime/bundles/generic4.ssdiff/manifest.json",
        "ssdiff_trt/runtime/bundles/generic8.ssdiff/weights.fp32.safetensors",
        "ssdiff_ref/recipes/generic4.toml",
        "ssdiff_ref/report/page.html",
    ):
        assert name in names
    assert not [name for name in names if "/tests/" in name or name.startswith("tests/")]


def test_files_of_a_user_cannot_shadow_what_is_installed(wheel, make_pair, tmp_path):
    """A user's folder has an ``export.py`` and a ``runtime.py`` of its own."""
    pair = make_pair(64, 64)
    installed, folder = tmp_path / "installed", tmp_path / "folder"
    words = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", installed, wheel]
    subprocess.run(words, check=True, capture_output=True)
    folder.mkdir()
    for name in ("export", "runtime", "calibration", "options", "errors"):
        (folder / f"{name}.py").write_text("raise RuntimeError('not this one')")
    code = (
        "import ssdiff_trt, ssdiff_trt.export, ssdiff_ref, sys\n"
        "import ssdiff_trt.runtime.pansharpener as module\n"
        f"assert module.__file__.startswith({str(installed)!r}), module.__file__\n"
        f"ssdiff_trt.pansharpen({str(pair[0])!r}, {str(pair[1])!r}, 'out.tif')\n"
        "print(ssdiff_trt.__version__)"
    )
    environment = {"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "out.tif").exists()


def test_the_image_has_the_libraries_that_wheels_leave_to_the_system():
    code = (
        "import bz2, ctypes, lzma, sqlite3, ssl, uuid\n"
        "def loaded():\n"
        "    words = (line.split() for line in open('/proc/self/maps'))\n"
        "    return {line[5] for line in words if len(line) > 5 and '.so' in line[5]}\n"
        "python = loaded()\n"
        "import h5py, matplotlib.pyplot, numpy.linalg, onnxruntime, rasterio, scipy.ndimage\n"
        "print(*(loaded() - python), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    paths = [Path(line) for line in done.stdout.splitlines()]
    brought = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
    names = {path.name for path in paths if not any(map(path.is_relative_to, brought))}
    names = {name for name in names if re.split(r"[-.]", name)[0] not in IN_IMAGE}
    left = {re.sub(r"(\.so\.\d+).*", r"\1", name) for name in names}
    assert left == {"libexpat.so.1"}
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert all(f" {main._LIBRARIES[library]} " in dockerfile for library in left)
