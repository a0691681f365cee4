"""Finding, opening and checking bundles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ssdiff_trt.runtime.bundle.manifest import Form, Graph, Manifest, Precision, Role
from ssdiff_trt.runtime.errors import SSDiffError, counted
from ssdiff_trt.runtime.files import cache_folder

MANIFEST = "manifest.json"
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
            SSDiffError: if the bundle has none of the forms.
        """
        for form in forms:
            for graph in self.manifest.graphs:
                if (graph.role, graph.precision, graph.form) == (role, precision, form):
                    return graph
        flag = "" if precision == "fp32" else f" --{precision}"
        flag += " --calibration SAMPLES" if precision == "int8" else ""
        kind = f"{forms[0]} graph" if len(forms) == 1 else "graph"
        raise SSDiffError(
            f"The bundle {self.path} has no {kind} of a {role} in {precision}, "
            f"only graphs in {' and '.join(self.precisions)}; export it with ssdiff-export{flag}."
        )


def sha256_of(path: Path) -> str:
    """sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else fault["msg"].removeprefix("Value error, ")


def _directory(path: str | Path) -> Path:
    """Directory of a bundle, given as a path or as the name of a shipped bundle."""
    candidate = SHIPPED / f"{path}.ssdiff"
    return candidate if candidate.is_dir() and not Path(path).exists() else Path(path)


def is_bundle(path: str | Path) -> bool:
    """Whether ``path`` is the directory of a bundle or the name of a shipped one."""
    return (_directory(path) / MANIFEST).is_file()


def user_bundle(name: str) -> Path:
    """Directory in the user's cache for a shipped bundle that was exported with more graphs."""
    return cache_folder() / "bundles" / f"{name}.ssdiff"


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle and check its schema, hashes and shapes.

    Args:
        path: directory of a bundle, or name of a shipped one. If the user has exported the shipped
            bundle with more graphs, that version is opened from the cache.

    Raises:
        SSDiffError: if it is not a valid bundle; the message names the file or field.
    """
    directory = _directory(path)
    shipped_bundle = _open(directory, path)
    if directory.parent != SHIPPED:
        return shipped_bundle
    try:
        extended = _open(user_bundle(directory.stem), path)
    except SSDiffError:
        return shipped_bundle
    weights = extended.manifest.provenance.weights_sha256
    return extended if weights == shipped_bundle.manifest.files[CHECKPOINT] else shipped_bundle


def _open(directory: Path, path: str | Path) -> Bundle:
    file = directory / MANIFEST
    if not file.is_file():
        raise SSDiffError(
            f"{path} is not a bundle: there is no {MANIFEST} in it; give a directory written by "
            f"ssdiff-export, or the name of a shipped bundle: {', '.join(shipped())}."
        )
    text = file.read_bytes()
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise SSDiffError(
            f"The manifest {file} is not valid ({_first_fault(error)}); export the bundle again."
        ) from error
    for name, expected in manifest.files.items():
        member = directory / name
        if not member.is_file():
            raise SSDiffError(f"The bundle {directory} lacks its file {name}; export it again.")
        if sha256_of(member) != expected:
            raise SSDiffError(
                f"The file {member} is not the one that was exported (its sha256 differs from the "
                "manifest's); export the bundle again."
            )
    return Bundle(directory, manifest, hashlib.sha256(text).hexdigest())


def shipped() -> list[str]:
    """Names of the bundles that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.ssdiff"))


def bundle_for(bands: int, bundle: str | Path | Bundle | None = None) -> Bundle:
    """A bundle for imagery with a number of bands.

    Args:
        bands: number of bands of the MS image.
        bundle: bundle to use; default: the shipped one for this number of bands.

    Raises:
        SSDiffError: if the bundle is for another number of bands, or cannot be opened.
    """
    if bundle is None:
        candidates = [open_bundle(name) for name in shipped()]
    else:
        candidates = [bundle if isinstance(bundle, Bundle) else open_bundle(bundle)]
    for candidate in candidates:
        if candidate.manifest.model.bands == bands:
            return candidate
    expected = " and ".join(
        f"{c.manifest.name} is for {c.manifest.model.bands} ({', '.join(c.manifest.sensor.bands)})"
        for c in candidates
    )
    raise SSDiffError(
        f"The MS image gives {counted(bands, 'band')} and the bundle {expected}; select bands in "
        "that order with --bands (an alpha band is used only if it is selected), or choose another "
        "`bundle`."
    )
