"""What workers get and give: the plan that they carry out, and blocks of its result."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ssdiff_trt.runtime.blocks import BlockPixels, Part
from ssdiff_trt.runtime.bundle.store import SHIPPED, Bundle, open_bundle
from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.options import ExecutionOptions, ReadOptions
from ssdiff_trt.runtime.plan.plan import WINDOW, Plan
from ssdiff_trt.runtime.plan.result import Tally
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.tiles.tiling import Block


@dataclass(frozen=True)
class Job:
    """A plan, on its way to workers.

    Inputs and bundle are in it by name: each worker opens them itself.
    """

    plan: bytes
    """Pickled; see :func:`job_of`."""
    inputs: str
    """Fingerprint of PAN and MS."""
    bundle: str
    """sha256 of the bundle."""
    execution: ExecutionOptions
    """What runs the network."""
    numbered: bool
    """Whether the workers are processes of one machine, numbered, each with the GPU of its
    number."""


def job_of(plan: Plan, execution: ExecutionOptions, numbered: bool) -> Job:
    """What workers need to carry out a plan.

    Raises:
        InputError: if other processes cannot open its inputs.
    """
    if plan.source.fingerprint() is None:
        raise InputError(
            f"PAN or MS ({plan.source.name}) cannot be opened by other processes, as neither is a "
            "file or URL that states when it changed; leave `workers` and `scheduler` out."
        )
    content = io.BytesIO()
    _Pickler(content, plan).dump(plan)
    with pickle.loads(content.getvalue()).source as pair:  # by the names that workers get
        inputs = pair.fingerprint()
    return Job(content.getvalue(), inputs, plan.bundle.sha256, execution, numbered)


class _Pickler(pickle.Pickler):
    """Puts in place of what is open how to open it again."""

    def __init__(self, file: io.BytesIO, plan: Plan) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._sink = plan.sink

    def reducer_override(self, value: Any) -> Any:
        if value is self._sink:  # workers write nothing
            return _sink, (value.with_uncertainty,)
        if isinstance(value, Bundle):
            path = value.path.absolute()
            return open_bundle, (path.stem if path.parent == SHIPPED else str(path),)
        if isinstance(value, Scene):
            names = (_absolute(value.pan.name), _absolute(value.ms.name))
            return _scene, (*names, value.options, value.shift)
        return NotImplemented


def _sink(with_uncertainty: bool) -> SimpleNamespace:
    return SimpleNamespace(with_uncertainty=with_uncertainty)


def _scene(pan: str, ms: str, options: ReadOptions, shift: tuple[float, float]) -> Scene:
    scene = Scene(pan, ms, options)
    return scene.moved(*shift) if any(shift) else scene


def _absolute(name: str) -> str:
    """A file's name from everywhere; any other name that GDAL takes as it is."""
    return os.path.abspath(name) if os.path.exists(name) else name


@dataclass
class Answer:
    """A block that a worker computed."""

    parts: list[Part]
    """See :class:`ssdiff_trt.runtime.blocks.BlockPixels`."""
    record: dict[str, float]
    """What was counted, see :class:`ssdiff_trt.runtime.plan.result.Tally`."""
    sha256: str
    """Of both, see :func:`digest`."""
    seconds: float
    """Time that it took."""


def reason_of(error: BaseException) -> str:
    """What a worker raised, as a clause."""
    if isinstance(error, SSDiffError):
        return str(error).rstrip(".")
    return f"{type(error).__name__}: {error}"


def digest(parts: Sequence[Part], record: Mapping[str, float]) -> str:
    """sha256 of a block's pixels and counts."""
    sha256 = hashlib.sha256(repr(sorted(record.items())).encode())
    for part in parts:
        sha256.update(repr(part[:2]).encode())
        for array in part[2:]:
            sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def pixels_of(plan: Plan, block: Block, answer: Any) -> BlockPixels:
    """The block that a worker gives.

    Raises:
        ValueError: if it is not one; what is wrong, as a clause.
    """
    if not isinstance(answer, Answer):
        raise ValueError(f"a {type(answer).__name__} was returned, expected a block")
    bands = len(plan.source.bands) * (1 + plan.sink.with_uncertainty)
    places = [plan.place(window) for window in block.windows(WINDOW)]
    if [part[:2] for part in answer.parts] != places:
        raise ValueError("other windows were returned than those of the block")
    for rows, cols, values, valid in answer.parts:
        size = len(rows), len(cols)
        for array, shape, dtype in ((values, (bands, *size), "float32"), (valid, size, "bool")):
            if array.shape != shape or array.dtype.name != dtype:
                raise ValueError(
                    f"it has an array {list(array.shape)} of {array.dtype}, expected "
                    f"{list(shape)} of {dtype}"
                )
        if not np.isfinite(values).all():
            raise ValueError("it has values that are not finite")
    tally = Tally()
    if set(answer.record) != set(tally.record()):
        raise ValueError("it does not count what a block counts")
    if digest(answer.parts, answer.record) != answer.sha256:
        raise ValueError("its pixels are not those that the worker computed, by their sha256")
    tally.add(answer.record)
    return BlockPixels(plan.place(block), answer.parts, tally)
