"""TODO."""

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


CHECKPOINT = "weights.fp32.safetensors"
"""The weights, under their released names."""


TRANSPOSED = "transposed."
"""What names of matrices in it begin with that are transposed, as the graphs want them."""


GRAPH_CONSTANT = "graph."
"""What names begin with that only the graphs use."""


@dataclass(frozen=True)
class Bundle:
    """An opened and checked bundle."""

    path: Path
    manifest: Manifest
    sha256: str
    """Of the manifest, which has those of all other files."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that it has graphs for."""
        return tuple(dict.fromkeys(graph.precision for graph in self.manifest.graphs))

    def graph(self, role: Role, precision: Precision, *forms: Form) -> Graph:
        """The graph of that kind, in the first of the forms that the bundle has.

        Raises:
            SSDiffError: if it has none.
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
    """Hex digest of a file."""
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
    """Of a bundle that comes along, or as it is."""
    known = SHIPPED / f"{path}.ssdiff"
    return known if known.is_dir() and not Path(path).exists() else Path(path)


def is_bundle(path: str | Path) -> bool:
    """Whether this is a directory with a bundle, or the name of one that comes along."""
    return (_directory(path) / MANIFEST).is_file()


def user_bundle(name: str) -> Path:
    """Where a bundle that comes along is, when this user has exported it with more graphs."""
    return cache_folder() / "bundles" / f"{name}.ssdiff"


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle and check its schema, hashes and shapes.

    Args:
        path: the directory, or the name of a bundle that comes with the package. If this user has
            exported that one with more graphs, it is the one with these.

    Raises:
        SSDiffError: saying which file or field is wrong.
    """
    directory = _directory(path)
    original = _open(directory, path)
    if directory.parent != SHIPPED:
        return original
    try:
        richer = _open(user_bundle(directory.stem), path)
    except SSDiffError:
        return original
    same = richer.manifest.provenance.weights_sha256 == original.manifest.files[CHECKPOINT]
    return richer if same else original


def _open(directory: Path, path: str | Path) -> Bundle:
    file = directory / MANIFEST
    if not file.is_file():
        raise SSDiffError(
            f"{path} is not a bundle: there is no {MANIFEST} in it. Give a directory that "
            f"ssdiff-export made, or one of the bundles that come along: {', '.join(shipped())}."
        )
    text = file.read_bytes()
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise SSDiffError(
            f"The manifest {file} is not valid ({_first_fault(error)}); export the bundle again."
        ) from error
    for name, expected in manifest.files.items():
        part = directory / name
        if not part.is_file():
            raise SSDiffError(f"The bundle {directory} lacks its file {name}; export it again.")
        if sha256_of(part) != expected:
            raise SSDiffError(
                f"The file {part} is not the one that was exported (its sha256 differs from the "
                "manifest's); export the bundle again."
            )
    return Bundle(directory, manifest, hashlib.sha256(text).hexdigest())


def shipped() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.ssdiff"))


def bundle_for(bands: int, bundle: str | Path | Bundle | None = None) -> Bundle:
    """A bundle for imagery of so many bands.

    Args:
        bands: of the MS image.
        bundle: which one; by default one of those that come with the package.

    Raises:
        SSDiffError: if it is for another number of bands, or as :func:`open_bundle` does.
    """
    if bundle is None:
        candidates = [open_bundle(name) for name in shipped()]
    else:
        candidates = [bundle if isinstance(bundle, Bundle) else open_bundle(bundle)]
    for candidate in candidates:
        if candidate.manifest.model.bands == bands:
            return candidate
    offers = " and ".join(
        f"{c.manifest.name} is for {c.manifest.model.bands} ({', '.join(c.manifest.sensor.bands)})"
        for c in candidates
    )
    raise SSDiffError(
        f"The MS image gives {counted(bands, 'band')} and the bundle {offers}; choose "
        "bands with --bands, in that order (one marked as alpha counts only if it is chosen), or "
        "another --bundle."
    )
