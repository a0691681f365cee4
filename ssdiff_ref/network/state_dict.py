"""The state dict in a weights file, whichever library wrote the file and whatever wraps it."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssdiff_trt.runtime import files
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import not_fetched

DAMAGED: tuple[type[Exception], ...] = (*files.DAMAGED, SafetensorError, pickle.UnpicklingError)
"""What reading a damaged file raises."""
_DEEPEST = 8
"""Nesting of dictionaries that is searched."""


@dataclass(frozen=True)
class StateDict:
    """Tensors of a network, in a file that may contain more."""

    key: str
    """Where they are in the file: names of dictionaries and the prefix that was stripped from the
    tensors' names, with dots between them; empty if the file contains nothing else."""
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    """Names of tensors in the same dictionary that do not have the prefix."""


class _Inert:
    """Stands for an object of a class that is not loaded, since loading it could execute code."""

    def __new__(cls, *args: Any) -> _Inert:
        # copyreg and numpy make an object by a function whose first argument is its class.
        named = args[0] if args and isinstance(args[0], type) else cls
        return object.__new__(named if issubclass(named, _Inert) else cls)

    def __init__(self, *args: Any) -> None:
        """Ignore the object's arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the object's state."""


def read_state_dict(path: Path, anchor: str, key: str | None = None) -> StateDict:
    """Read the state dict of a ``.safetensors`` or PyTorch file, known by its first bytes.

    Nothing in the file is executed: objects other than tensors and plain containers are skipped.

    Args:
        path: file to read.
        anchor: name of a tensor that every state dict of the network has.
        key: where in the file the state dict is, as in :attr:`StateDict.key`, or the beginning of
            that; needed if there are several.

    Raises:
        InputError: if the file cannot be read, or contains no such state dict, or several.
    """
    content = read_file(path)
    found = list(_candidates(content, anchor))
    places = " and ".join(place.key or "the top level" for place in found)
    if key is not None:
        chosen = [place for place in found if place.key == key]
        chosen = chosen or [place for place in found if place.key.startswith(f"{key}.")]
        if not chosen:
            expected = places or f"a key of it ({_summary(content)})"
            raise InputError(
                f"{path} has no weights under {key}, expected {expected}; change `weights_key`, or "
                "omit it where there is one place only."
            )
        found, places = chosen, " and ".join(place.key for place in chosen)
    if not found:
        raise InputError(
            f"{path} has no tensor {anchor}, only {_summary(content)}; give an SSDiff checkpoint, "
            "and save the state dict of a model, not the model itself."
        )
    if len(found) > 1:
        raise InputError(
            f"{path} has weights in several places, {places}; choose one of them with "
            f"`weights_key={next(place.key for place in found if place.key)}`."
        )
    (state,) = found
    for name, value in state.tensors.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"In {path}, the entry {name} of the state dict is of type "
                f"{type(value).__name__}, expected a tensor; save the state dict alone."
            )
    return state


def _candidates(content: Any, anchor: str) -> list[StateDict]:
    """Every part of a file that has the anchor; those where it is a tensor, if there are any."""
    found = list(_places(content, anchor, (), set()))
    return [place for place in found if isinstance(place.tensors[anchor], Tensor)] or found


def _places(
    content: Any, anchor: str, path: tuple[str, ...], seen: set[int]
) -> Iterator[StateDict]:
    if not isinstance(content, dict) or id(content) in seen or len(path) > _DEEPEST:
        return
    seen.add(id(content))
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _places(value, anchor, (*path, str(name)), seen)
        elif f".{name}".endswith(f".{anchor}"):
            prefix = name.removesuffix(anchor)
            named = {str(other): content[other] for other in content}
            yield StateDict(
                key=".".join((*path, prefix)).strip("."),
                tensors={
                    other.removeprefix(prefix): value
                    for other, value in named.items()
                    if other.startswith(prefix)
                },
                beside=tuple(
                    other
                    for other, value in named.items()
                    if isinstance(value, Tensor) and not other.startswith(prefix)
                ),
            )


def _summary(content: Any) -> str:
    """What a file contains, in a few words."""
    if not isinstance(content, dict):
        return f"an object of type {type(content).__name__}"
    names = [
        f"{name}" if isinstance(value, Tensor) else f"{name} ({type(value).__name__})"
        for name, value in content.items()
    ]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "an empty dictionary") + more


def read_file(path: Path) -> Any:
    """The content of a file: usually dictionaries of tensors.

    Raises:
        InputError: if it is not a weights file; the message says what it is.
    """
    try:
        fault = not_fetched(path)
        with path.open("rb") as file:
            head = file.read(9)
        if fault is None and head[8:] == b"{":
            return load_file(path)
        if fault is None and head.startswith(b"PK\x03\x04"):
            fault = _fault_of_archive(path)
        if fault is None and head.startswith((b"PK\x03\x04", b"\x80")):
            return _load(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); check the file."
        ) from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} cannot be read as weights: it is damaged, or its state dict is inside an "
            "object whose loading could execute code; fetch it again, or save the state dict alone."
        ) from error
    except DAMAGED as error:
        raise InputError(
            f"{path} cannot be read as weights: it is damaged or incomplete; fetch or save it "
            "again."
        ) from error
    fault = fault or (
        "cannot be read as weights: it begins neither like .safetensors nor like a PyTorch file; "
        "give one of these"
    )
    raise InputError(f"{path} {fault}.")


def _fault_of_archive(path: Path) -> str | None:
    """Why a ZIP archive is not a PyTorch file, as the end of a sentence; None if it is one."""
    if not zipfile.is_zipfile(path):
        return "cannot be read as weights: it is an incomplete PyTorch file; fetch or save it again"
    with zipfile.ZipFile(path) as archive:
        members = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in members:
        return "is a TorchScript program; save the state dict of its model instead"
    if "data.pkl" not in members:
        return "is a ZIP archive, not a PyTorch file; give a weights file, which it may contain"
    return None


def _load(path: Path) -> Any:
    """Content of a PyTorch file, with objects of other classes replaced by inert ones."""
    names: list[str] = []
    unknown: list[Any] = []
    with path.open("rb") as file:  # given a path, torch.load goes by its suffix
        if zipfile.is_zipfile(file):
            file.seek(0)
            names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        file.seek(0)
        unknown += [(type(name.rpartition(".")[2], (_Inert,), {}), name) for name in names]
        with warnings.catch_warnings(), torch.serialization.safe_globals(unknown):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
