"""Finding, opening and checking bundles."""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from ssdiff_trt.runtime.bundle.external_data import external_files
from ssdiff_trt.runtime.bundle.manifest import Form, Graph, Manifest, Role, read_manifest
from ssdiff_trt.runtime.errors import BundleError, SSDiffWarning, counted
from ssdiff_trt.runtime.files import not_fetched, reason_of
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.user_folders import cache_folder

MANIFEST = "manifest.json"
ENGINES = "engines"
"""Folder of TensorRT engines in a bundle."""
SHIPPED = Path(__file__).parents[1] / "bundles"
"""Folder of the bundles that ship with the package."""
CHECKPOINT = "weights.fp32.safetensors"
"""File with the weights, under the names of the released checkpoints."""
TRANSPOSED = "transposed."
"""Prefix in this file for matrices that are stored transposed, as the graphs use them."""
GRAPH_CONSTANT = "graph."
"""Prefix in this file for constants of the graphs that are not weights."""


@dataclass(frozen=True)
class Bundle:
    """An opened and checked bundle."""

    path: Path
    manifest: Manifest
    sha256: str
    """sha256 of the manifest, which holds those of all other files."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions of its graphs."""
        return tuple(dict.fromkeys(graph.precision for graph in self.manifest.graphs))

    def graph(self, role: Role, precision: Precision, *forms: Form) -> Graph:
        """The graph of a role and precision, in the first of ``forms`` that the bundle has.

        Raises:
            BundleError: if the bundle has none of the forms.
        """
        for form in forms:
            for graph in self.manifest.graphs:
                if (graph.role, graph.precision, graph.form) == (role, precision, form):
                    return graph
        flag = "" if precision == "fp32" else f" --{precision}"
        flag += " --calibration SAMPLES" if precision == "int8" else ""
        kind = f"{forms[0]} graph" if len(forms) == 1 else "graph"
        raise BundleError(
            f"The bundle {self.path} has no {kind} of a {role} in {precision}, "
            f"only graphs in {' and '.join(self.precisions)}; export it with ssdiff-export{flag}."
        )

    def engine(self, name: str) -> bytes:
        """An engine that the manifest lists. It is native code: load it only if it is trusted.

        Raises:
            BundleError: if it is not there, or not the one that the manifest lists.
        """
        return _read_member(self.path, f"{ENGINES}/{name}", self.manifest.engines[name])


def _first_fault(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else fault["msg"].removeprefix("Value error, ")


def _directory(path: str | Path) -> Path:
    """Directory of a bundle, given as a path or as the name of a shipped bundle.

    A bare name is that of a shipped bundle, whatever lies in the working directory.
    """
    return SHIPPED / f"{path}.ssdiff" if str(path) in shipped() else Path(path)


def is_bundle(path: str | Path) -> bool:
    """Whether ``path`` is the directory of a bundle or the name of a shipped one."""
    return os.path.isfile(_directory(path) / MANIFEST)


def strange_files(directory: Path) -> list[str]:
    """Names in the directory of a bundle that are of no part of a bundle, sorted."""
    parts = MANIFEST, ENGINES
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.name not in parts and path.suffix not in (".onnx", ".safetensors")
    )


def user_bundle(name: str) -> Path:
    """Directory in the user's cache for a shipped bundle that was exported with more graphs."""
    return cache_folder() / "bundles" / f"{name}.ssdiff"


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle and check its schema, hashes and shapes.

    Args:
        path: directory of a bundle, or name of a shipped one. If the user has exported this very
            version of the shipped bundle with more graphs, that is opened from the cache.

    Raises:
        BundleError: if it is not a valid bundle; the message names the file or field.

    Warns:
        SSDiffWarning: if the bundle in the cache was exported from another version, or is damaged;
            the shipped one is opened then.
    """
    directory = _directory(path)
    bundle = _open(directory)
    extended = user_bundle(directory.stem)
    if directory.parent != SHIPPED or not os.path.exists(extended):  # or it may not be looked for
        return bundle
    try:
        found = _open(extended)
        origin, ours = found.manifest.provenance, f"ssdiff-trt {version('ssdiff-trt')},"
        if origin.extends == bundle.sha256 and origin.exporter.startswith(ours):
            return found
        reason = "it was exported by another version, or from another shipped bundle"
    except BundleError as error:
        reason = str(error).rstrip(".")
    precisions = "".join(f" --{p}" for p in ("fp16", "bf16") if (extended / _weights(p)).exists())
    warnings.warn(
        f"The bundle {extended} is not used ({reason}); the shipped {directory.stem} is used "
        f"instead. Export it again with ssdiff-export{precisions}, or delete it.",
        SSDiffWarning,
        stacklevel=2,
    )
    return bundle


def _weights(precision: str) -> str:
    """Name of the file with the constants of a precision's graphs."""
    return f"weights.{precision}.safetensors"


def _open(directory: Path) -> Bundle:
    try:
        return _read(directory)
    except OSError as error:
        raise BundleError(
            f"The bundle {directory} cannot be read ({reason_of(error)}); check its files and who "
            "may read them."
        ) from None


def _read(directory: Path) -> Bundle:
    file = directory / MANIFEST
    if not os.path.isfile(file):
        lack = f"there is no {MANIFEST} in it" if directory.exists() else "it does not exist"
        raise BundleError(
            f"{directory} is not a bundle: {lack}; give a directory written by ssdiff-export, or "
            f"the name of a shipped bundle: {', '.join(shipped())}."
        )
    _check_inside(directory, file)
    if fault := not_fetched(file):
        raise BundleError(f"The manifest {file} {fault}.")
    text = file.read_bytes()
    try:
        manifest = read_manifest(text)
    except ValueError as error:
        raise BundleError(
            f"The manifest {file} is not valid ({_first_fault(error)}); fetch the bundle again, or "
            "export it again."
        ) from error
    bundle = Bundle(directory, manifest, hashlib.sha256(text).hexdigest())
    weights = {graph.file: graph.weights for graph in manifest.graphs}
    for name, expected in manifest.files.items():
        content = _read_member(directory, name, expected)
        if name in weights:
            _check_external_data(directory / name, content, weights[name])
    return bundle


def _read_member(directory: Path, name: str, expected: str) -> bytes:
    """Content of a file of a bundle, which has this sha256.

    Raises:
        BundleError: if it is not there, has another sha256, or is outside the bundle.
    """
    member = directory / name
    if not os.path.isfile(member):  # False for a name that cannot be one
        raise BundleError(
            f"The bundle {directory} lacks its file {name}; fetch the bundle again, or export it "
            "again."
        )
    _check_inside(directory, member)
    content = member.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        fault = not_fetched(member) or (
            "is not the one that was exported (its sha256 differs from the manifest's): it is "
            "damaged, incomplete or of another bundle; fetch the bundle again, or export it again"
        )
        raise BundleError(f"The file {member} {fault}.")
    return content


def _check_inside(directory: Path, member: Path) -> None:
    """Check that no link leads from the place of a member to the outside of the bundle.

    Raises:
        BundleError: if one does.
    """
    if not member.resolve().is_relative_to(directory.resolve()):
        raise BundleError(
            f"The file {member} is {member.resolve()}, expected a file inside the bundle; copy the "
            "bundle with what its links lead to (cp -rL)."
        )


def _check_external_data(file: Path, content: bytes, weights: str) -> None:
    """Check that a graph takes its constants from the file that the manifest says.

    Raises:
        BundleError: if it names another file, which may be anywhere, or is no ONNX file.
    """
    try:
        others = external_files(content) - {weights}
    except ValueError as error:
        raise BundleError(
            f"The graph {file} is not an ONNX file ({error}); fetch the bundle again, or export it "
            "again."
        ) from error
    if others:
        raise BundleError(
            f"The graph {file} takes constants from {min(others)!r}, expected {weights} alone, "
            "which its manifest states; do not use this bundle, or export it again."
        )


def shipped() -> list[str]:
    """Names of the bundles that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.ssdiff"))


def bundle_for(bands: int, bundle: str | Path | Bundle | None = None) -> Bundle:
    """A bundle for imagery with a number of bands.

    Args:
        bands: number of bands of the MS image.
        bundle: bundle to use; default: the shipped one for this number of bands.

    Raises:
        BundleError: if the bundle is for another number of bands, or cannot be opened.
    """
    others = []
    for name in shipped() if bundle is None else [bundle]:
        candidate = name if isinstance(name, Bundle) else open_bundle(name)
        if candidate.manifest.model.bands == bands:
            return candidate
        others.append(candidate)
    expected = " and ".join(map(_in_words, others))
    remedy = (
        "give a file that has all bands of MS, or a list of files of one band each"
        if bands == 1
        else "select bands in that order with `bands` (an alpha band is used only if it is "
        "selected), choose another `bundle`, or fuse any bands by a classical method with "
        "ssdiff-ref fuse"
    )
    raise BundleError(
        f"The MS image gives {counted(bands, 'band')} and the bundle {expected}; {remedy}."
    )


def _in_words(bundle: Bundle) -> str:
    """Bands that a bundle is for."""
    manifest = bundle.manifest
    return f"{manifest.name} is for {manifest.model.bands}{names_of_bands(bundle)}"


def names_of_bands(bundle: Bundle) -> str:
    """Names of a bundle's bands, in parentheses, where they have any but numbers."""
    names = bundle.manifest.sensor.bands
    return "" if names[0] == "band 1" else f" ({', '.join(names)})"
