"""A folder that carries the GPU check to a machine without a network: ``make gpu-pack``.

    python -m benchmarks.gpu.pack [-o out/gpu-pack] [--python 3.10] [--machine aarch64]

::

    gpu-pack/
        check.sh        runs the check
        benchmarks/gpu  the check
        wheels/         this project with one bundle, pip, and the packages that it needs

PyTorch, TensorRT, CUDA's packages and numpy are those of that machine, and never in the folder.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click

from ssdiff_trt.cli.main import run
from ssdiff_trt.runtime.errors import InputError, OutputError
from ssdiff_trt.runtime.files import replace_folder
from ssdiff_trt.runtime.scratch import scratch_folder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MOST = 60 * 10**6
"""Bytes that the folder may have."""
BUNDLE = "generic4.ssdiff"
"""The bundle that is carried; it has graphs in FP32, FP16 and BF16."""
MANYLINUX = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
"""Platforms of wheels, without the machine; JetPack 6 has glibc 2.35."""
OF_THE_MACHINE = re.compile(r"(numpy|torch|triton|tensorrt\w*|nvidia_(?!ml_py)\w+)-")
"""Wheels that only the machine itself may have."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("-o", "--output", default="out/gpu-pack", help="Folder to write.")
@click.option(
    "--python",
    default=".".join(platform.python_version_tuple()[:2]),
    help="Python of the machine: 3.10 with JetPack 6.",
)
@click.option(
    "--machine",
    default=platform.machine(),
    type=click.Choice(("x86_64", "aarch64")),
    help="Processor of the machine: aarch64 for a Jetson.",
)
@click.option(
    "--with",
    "packages",
    multiple=True,
    metavar="REQUIREMENT",
    help="Package that the machine lacks, such as onnxruntime or cuda-bindings; repeat.",
)
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists.")
def main(
    output: str, python: str, machine: str, packages: tuple[str, ...], overwrite: bool
) -> None:
    """Make a folder that runs the GPU check on a machine without a network."""
    path = Path(output).absolute()
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give another `output` or pass `overwrite`.")
    with scratch_folder(path) as scratch:
        folder = scratch / path.name
        fill(folder, python, machine, packages)
        size = check_size(folder)
        replace_folder(folder, path)
    click.echo(f"{path}: {size / 1e6:.0f} MB. On the machine: sh {path.name}/check.sh")


def fill(folder: Path, python: str, machine: str, packages: tuple[str, ...]) -> None:
    """Put the check, this project and what it needs into a folder.

    Raises:
        InputError: if a package has no wheel for the machine.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "for").write_text(f"{python} {machine}\n")
    platforms = [f"--platform={name}_{machine}" for name in MANYLINUX]
    words: list[str | Path] = [
        "pip",
        "download",
        "--quiet",
        "--dest",
        wheels,
        "--only-binary=:all:",
        *platforms,
    ]
    words += [f"--python-version={python}", "--requirement", HERE / "requirements.txt"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "pip", *packages], stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise InputError(
            f"pip gives no wheels for Python {python} on {machine} "
            f"({reason.removeprefix('ERROR: ')}); correct `python`, `machine` or `with`."
        )
    for wheel in wheels.iterdir():
        if OF_THE_MACHINE.match(wheel.name):
            wheel.unlink()
    source = folder / "source"
    _build("--sdist", ROOT, source)
    (archive,) = source.iterdir()
    shutil.unpack_archive(archive, source, filter="data")
    (tree,) = (path for path in source.iterdir() if path != archive)
    for bundle in (tree / "runtime/bundles").iterdir():
        if bundle.name != BUNDLE:
            shutil.rmtree(bundle)
    _build("--wheel", tree, wheels)
    shutil.rmtree(source)
    shutil.copytree(HERE, folder / "benchmarks/gpu", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "benchmarks/gpu/requirements.txt").open("a") as requirements:
        requirements.writelines(f"{package}\n" for package in packages)
    shutil.move(folder / "benchmarks/gpu/check.sh", folder)


def _build(kind: str, source: Path, output: Path) -> None:
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        kind,
        "--outdir",
        output,
        source,
    ]
    subprocess.run(words, check=True, capture_output=True)


def check_size(folder: Path) -> int:
    """Size of a folder, bytes.

    Raises:
        InputError: if it is too large to be carried.
    """
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if total > MOST:
        raise InputError(
            f"The folder has {total / 1e6:.0f} MB, expected at most {MOST / 1e6:.0f} MB; carry "
            "fewer packages by `with`."
        )
    return total


if __name__ == "__main__":
    run(main, "gpu-pack")
