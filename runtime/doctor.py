"""What this machine has for a run, whether it works, and what would mend what does not."""

from __future__ import annotations

import os
import platform
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import rasterio
from pydantic import computed_field

from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.backends.protocol import Backend, close
from ssdiff_trt.runtime.backends.registry import GPU_BACKENDS, open_backend, why_not
from ssdiff_trt.runtime.benchmark.environment import environment
from ssdiff_trt.runtime.benchmark.results import Environment
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.bundle.store import Bundle, open_bundle
from ssdiff_trt.runtime.cpus import computes_in_bf16, usable_cpus
from ssdiff_trt.runtime.errors import SSDiffError, counted, install
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.memory import in_words, usable_memory
from ssdiff_trt.runtime.options import PrecisionChoice
from ssdiff_trt.runtime.parity.verification import require_parity
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.scratch import foreign
from ssdiff_trt.runtime.user_folders import cache_folder, make_cache

State = Literal["ok", "missing", "broken"]
_TESTED = ("x86_64", "aarch64")
_FORMATS = {"GTiff": "GeoTIFF", "JP2OpenJPEG": "JPEG 2000", "NITF": "NITF", "VRT": "VRT"}
_TEGRA = Path("/etc/nv_tegra_release")
_JETPACK = {36: "6", 38: "7", 39: "7"}
"""JetPack by the number of the Jetson Linux release."""
_CANDIDATES: dict[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime", "cpu"),
    "openvino": ("openvino", "openvino"),
    "onnxruntime-cuda": ("onnxruntime", "gpu"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt-rtx"),
}
"""Backends, the package that each needs and the extra that brings it."""
_OPTIONAL: dict[str, tuple[str, str]] = {
    "matplotlib": ("picture", "pictures (--quicklook)"),
    "scipy": ("evaluate", "reports and evaluation"),
    "distributed": ("dask", "several processes or machines (--workers, --scheduler)"),
    "fsspec": ("cloud", "results at URLs"),
    "rioxarray": ("xarray", "arrays of xarray"),
    "torch": ("export", "exporting weights; the extra train is for training and adaptation too"),
}
"""Other packages that a run does without, the extra that brings each and what it is for."""


class Finding(Strict):
    """One thing that was looked at."""

    what: str
    state: State
    """``missing`` is no fault: a run does without it."""
    found: str
    remedy: str | None = None
    """What to do if it is wanted, or broken."""


class Diagnosis(Strict):
    """What was found on a machine."""

    environment: Environment
    jetpack: str | None
    """Major version of JetPack, on a Jetson."""
    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usable(self) -> bool:
        """Whether a backend works and nothing is broken that every run needs."""
        backends = [each for each in self.findings if each.what.startswith("backend ")]
        others = [each for each in self.findings if each not in backends]
        works = any(backend.state == "ok" for backend in backends)
        return works and not any(other.state == "broken" for other in others)


def diagnose(bundle: str = "generic4", progress: Progress | None = None) -> Diagnosis:
    """Look at everything that a run can use, and run one tile on each backend.

    Args:
        bundle: directory of a bundle, or name of a shipped one.
        progress: receives what is looked at.

    Raises:
        SSDiffError: if the bundle cannot be used.
    """
    progress = progress or Progress()
    opened, jetpack = open_bundle(bundle), _jetpack()
    findings = [*_of_the_system(), *_of_backends(opened, jetpack, progress), *_of_packages()]
    return Diagnosis(environment=environment(), jetpack=jetpack, findings=tuple(findings))


def write_archive(diagnosis: Diagnosis, path: Path) -> None:
    """Write a ZIP with the diagnosis and the installed packages, without names of the user.

    The home folder becomes ``~``, the names of user and machine ``USER`` and ``HOST``.
    """
    packages = sorted(f"{each.metadata['Name']}=={each.version}" for each in distributions())
    contents = {
        "doctor.json": diagnosis.model_dump_json(indent=1),
        "packages.txt": "\n".join(dict.fromkeys(packages)) + "\n",
    }
    with atomic_write(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, _without_names(text))


def _without_names(text: str) -> str:
    home = Path.home()
    names = {str(home): "~", home.name: "USER", platform.node(): "HOST"}
    for name, replacement in names.items():
        if len(name) > 2:  # "/" would be everywhere
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", replacement, text)
    return text


def _jetpack() -> str | None:
    """Major version of JetPack, from the release of Jetson Linux; None on other machines."""
    try:
        release = re.match(r"# R(\d+)", _TEGRA.read_text())
    except OSError:
        return None
    return _JETPACK.get(int(release[1]), f"of Jetson Linux {release[1]}") if release else None


def _of_the_system() -> Iterator[Finding]:
    python = platform.python_version()
    new = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        what="Python",
        state="ok" if new else "broken",
        found=python if new else f"{python}, expected 3.10 to 3.13",
        remedy=None if new else "make a virtual environment with one of these",
    )
    system, machine = platform.system(), platform.machine()
    tested = system == "Linux" and machine in _TESTED
    yield Finding(
        what="system",
        state="ok",
        found=f"{system} on {machine}" + ("" if tested else "; tested is Linux on x86-64, aarch64"),
    )
    low = ", with BF16" if computes_in_bf16() else ""
    memory = in_words(usable_memory())
    yield Finding(
        what="CPU", state="ok", found=f"{counted(usable_cpus(), 'CPU')}{low}; {memory} of memory"
    )
    with rasterio.Env() as env:
        known = set(env.drivers())
    lacking = [title for driver, title in _FORMATS.items() if driver not in known]
    yield Finding(
        what="GDAL",
        state="broken" if "GeoTIFF" in lacking else "ok",
        found=f"{rasterio.__gdal_version__}, rasterio {rasterio.__version__}, "
        + (f"without {', '.join(lacking)}" if lacking else "with the usual formats"),
        remedy="pip install --force-reinstall rasterio, whose wheels have them"
        if lacking
        else None,
    )
    yield _of_the_cache()


def _of_the_cache() -> Finding:
    folder = cache_folder()
    try:
        make_cache(folder)
        fault = foreign(Path(os.path.realpath(folder)))
    except SSDiffError as error:
        return Finding(what="cache", state="missing", found=str(error), remedy="set SSDIFF_CACHE")
    if fault:
        found = f"{folder}, which {fault}; no engine is loaded from it"
        return Finding(what="cache", state="missing", found=found, remedy=f"chmod 700 {folder}")
    return Finding(what="cache", state="ok", found=str(folder))


def _of_backends(bundle: Bundle, jetpack: str | None, progress: Progress) -> Iterator[Finding]:
    reference = _reference(bundle)
    for name, (package, extra) in _CANDIDATES.items():
        if reason := _why_not(name, package):
            remedy = _remedy(name, extra, reason, jetpack)
            yield Finding(what=f"backend {name}", state="missing", found=reason, remedy=remedy)
            continue
        precisions: list[PrecisionChoice] = ["auto"]
        if name == "openvino" and computes_in_bf16():
            precisions.append("bf16")
        for precision in precisions:
            label = f"backend {name}" + ("" if precision == "auto" else f" in {precision}")
            progress.detail(f"Trying {label}")
            yield _try(label, bundle, name, precision, reference, progress)


def _of_packages() -> Iterator[Finding]:
    installed = {each.name: each.version for each in distributions()}
    for name, (extra, purpose) in _OPTIONAL.items():
        what = f"package {name}"
        if find_spec(name):
            found = f"{installed.get(name, 'installed')}, for {purpose}"
            yield Finding(what=what, state="ok", found=found)
        else:
            found = f"not installed, for {purpose}"
            yield Finding(what=what, state="missing", found=found, remedy=install(extra))


def _reference(bundle: Bundle) -> Backend | None:
    """A backend in FP32 on the CPU, if there is one."""
    with suppress(SSDiffError):
        return OnnxRuntime(bundle, form="portable")
    with suppress(SSDiffError):
        return open_backend("openvino", bundle, precision="fp32")
    return None


def _try(
    label: str,
    bundle: Bundle,
    name: str,
    precision: PrecisionChoice,
    reference: Backend | None,
    progress: Progress,
) -> Finding:
    """Open a backend and compare its images with those of the reference."""
    try:
        backend = open_backend(name, bundle, precision=precision, progress=progress)
        try:
            checked = "opened; nothing to compare it with"
            if reference is not None and reference.describe() != backend.describe():
                require_parity(bundle, backend, reference)
                checked = "images verified"
            return Finding(what=label, state="ok", found=f"{backend.describe()}: {checked}")
        finally:
            close(backend)
    except SSDiffError as error:
        remedy = "ssdiff-trt verify generic4 --backend " + name
        return Finding(what=label, state="broken", found=str(error), remedy=remedy)


def _why_not(name: str, package: str) -> str | None:
    """Why a backend is not there, as a clause; None if it can be tried."""
    from ssdiff_trt.runtime.backends.tensorrt.cuda import why_no_cuda

    if name in GPU_BACKENDS:
        return why_no_cuda() or why_not(name)
    return None if find_spec(package) else f"{package} is not installed"


def _remedy(name: str, extra: str, reason: str, jetpack: str | None) -> str:
    """The command that would bring a backend."""
    if "CUDA_VISIBLE_DEVICES" in reason:
        return "unset CUDA_VISIBLE_DEVICES"
    if "driver" in reason:
        if jetpack:
            return "sudo apt install nvidia-jetpack"
        return "install NVIDIA's driver; in a container, start it with --gpus all"
    if "pycuda" in reason:
        return f"pip install 'cuda-bindings>=12.6.1,<{13 if jetpack == '6' else 14}'"
    if jetpack and name == "tensorrt":
        return (
            "sudo apt install nvidia-jetpack, and a virtual environment that sees it: "
            "python3 -m venv --system-site-packages"
        )
    if jetpack and name != "openvino" and extra != "cpu":
        return "none on a Jetson; use tensorrt"
    if extra == "gpu":
        return "pip uninstall --yes onnxruntime; " + install(extra)
    return install(extra)
