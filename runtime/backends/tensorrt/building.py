"""Building an engine ahead of the first run, or as a file for another program."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from ssdiff_trt.runtime.backends.tensorrt.cuda import Cuda, open_cuda, why_no_cuda, why_no_package
from ssdiff_trt.runtime.backends.tensorrt.engine import (
    FLAVOURS,
    Flavour,
    Plan,
    default_batch,
    engine_batch,
    installed,
)
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache, engine_file
from ssdiff_trt.runtime.bundle.contract import Contract, EngineFile, contract_of
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import BackendError, InputError, install
from ssdiff_trt.runtime.files import atomic_write, check_target
from ssdiff_trt.runtime.options import Precision, PrecisionChoice
from ssdiff_trt.runtime.progress import Progress


@dataclass(frozen=True)
class Built:
    """An engine that was built, or found in the cache."""

    path: Path
    """Of the engine."""
    contract: Contract
    seconds: float
    """Time it took."""


def build_engine(
    bundle: Bundle,
    *,
    flavour: Flavour | Literal["auto"] = "auto",
    precision: PrecisionChoice = "auto",
    batch: int | None = None,
    device: int | None = None,
    gpu: str | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Build an engine of a bundle's step graph into the user's cache, or also into a file.

    A run on the GPU of this machine finds the engine in the cache. PyTorch is not needed.

    Args:
        bundle: bundle with the graph.
        flavour: of TensorRT; ``auto`` is the one that is installed.
        precision: of the graph; ``auto`` is fp16 if the bundle has it.
        batch: largest batch, tiles; the engine's is the next power of two. By default that of the
            precision and the GPU.
        device: GPU of this machine, counted from 0; by default the first.
        gpu: compute capability of a GPU that is not in this machine, such as sm86, for
            TensorRT-RTX; such an engine is only written to ``output``.
        output: file for the engine; the contract is written beside it, as ``.json``.
        overwrite: replace existing files.
        progress: receives progress updates.

    Raises:
        SSDiffError: if there is no GPU, TensorRT or graph for it, or the file cannot be written.
    """
    progress, began = progress or Progress(), time.monotonic()
    if gpu is not None and output is None:
        raise InputError(
            f"`gpu` is {gpu}, not a GPU of this machine, so its engine is of no use in the cache; "
            "name a file for it with `engine_file`.",
            parameter="gpu",
        )
    path = None if output is None else Path(output)
    if path is not None:
        if path.suffix == ".json":
            raise InputError(
                f"{path} is what its contract is called; give the engine another suffix, such as "
                ".plan.",
                parameter="engine_file",
            )
        for file in (path, path.with_suffix(".json")):
            check_target(file, (), overwrite, "engine_file")
    if flavour == "auto":
        there = [each for each in FLAVOURS if installed(each)]
        if not there:
            raise BackendError(
                f"No TensorRT is installed; {install('tensorrt')}, or {install('tensorrt-rtx')}."
            )
        flavour = there[0]
    if precision == "auto":
        precision = "fp16" if "fp16" in bundle.precisions else "fp32"
    cuda = None
    if gpu is None:
        if lack := why_no_cuda() or why_no_package():
            raise BackendError(
                f"An engine is built for a GPU, and {lack}; with TensorRT-RTX name one with `gpu`, "
                "such as sm86, and a file with `engine_file`."
            )
        cuda = open_cuda(device or 0)
    size = batch_on(cuda, precision, batch)
    plan = Plan(bundle, flavour, precision, cuda.device if cuda else gpu, size)
    engine = cached_engine(plan, cuda, progress) if cuda else plan.build(progress)[0]
    contract = contract_of(bundle, plan.graph, size)
    if path is not None:
        described = EngineFile(
            file=path.name,
            sha256=hashlib.sha256(engine).hexdigest(),
            flavour=flavour,
            version=plan.trt.__version__,
            gpu=plan.key.gpu,
        )
        contract = contract.model_copy(update={"engine": described})
        for file, content in (
            (path, engine),
            (path.with_suffix(".json"), contract.model_dump_json(indent=1).encode() + b"\n"),
        ):
            with atomic_write(file) as unfinished:
                unfinished.write_bytes(content)
    built = path or EngineCache().folder / engine_file(plan.key)
    return Built(built, contract, time.monotonic() - began)


def batch_on(cuda: Cuda | None, precision: Precision, batch: int | None = None) -> int:
    """Batch size of the engine for batches of up to ``batch`` tiles.

    Args:
        cuda: CUDA on the GPU; None for one that is not in this machine.
        precision: of the engine.
        batch: largest batch, tiles; by default that of the precision and the GPU.
    """
    total = None
    if cuda:
        with cuda.current():
            _, total = cuda.memory()
    return engine_batch(batch or default_batch(precision, total))


def cached_engine(plan: Plan, cuda: Cuda, progress: Progress) -> bytes:
    """The engine of a plan for a GPU of this machine, from the user's cache or built into it."""
    with cuda.current():  # TensorRT builds for the GPU that is current
        build = partial(plan.build, progress, cuda.memory()[0])
        return EngineCache().get(plan.key, build, progress)
