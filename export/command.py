"""What ``ssdiff-export`` does: bundles from weights, engines for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssdiff_ref.network.checkpoint import weights_file
from ssdiff_trt.calibration.samples import read_about
from ssdiff_trt.export.bundle import add_engine, check_calibration, defaults_of, export_bundle
from ssdiff_trt.runtime.backends.tensorrt.building import batch_on, cached_engine
from ssdiff_trt.runtime.backends.tensorrt.cuda import (
    Device,
    open_cuda,
    why_no_cuda,
    why_no_package,
)
from ssdiff_trt.runtime.backends.tensorrt.engine import (
    FLAVOURS,
    Flavour,
    Plan,
    check_target,
    import_tensorrt,
    installed,
)
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import engine_file
from ssdiff_trt.runtime.bundle.store import (
    MANIFEST,
    SHIPPED,
    Bundle,
    is_bundle,
    open_bundle,
    shipped,
    user_bundle,
)
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import sha256_of
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.user_folders import make_cache


def export(
    *,
    weights: str | None = None,
    sensor: str | None = None,
    output: str | None = None,
    fp16: bool = False,
    bf16: bool = False,
    int8: bool = False,
    calibration: str | None = None,
    engine: str = "auto",
    gpus: str | None = None,
    device: int | None = None,
    progress: Progress,
    **options: Any,
) -> Iterator[Bundle]:
    """Export bundles, and build engines for them.

    Args:
        weights: checkpoint or bundle; default: every shipped bundle.
        sensor: sensor that the weights are for; default: that of the bundle.
        output: bundle to write; shipped bundles are exported to the user's cache.
        fp16: whether to export graphs in FP16 too.
        bf16: whether to export graphs in BF16 too.
        int8: whether to export graphs in INT8 too, and with them graphs in FP16.
        calibration: samples for INT8. Without ``weights``, the bundle that they are of is exported.
        engine: ``auto``, ``none``, or a flavour of TensorRT to build engines with.
        gpus: compute capabilities to build for, with commas between them.
        device: GPU of this machine to build for, counted from 0; default: the first.
        progress: receives progress updates.
        options: of :func:`ssdiff_trt.export.bundle.export_bundle`.

    Yields:
        Each bundle, once its engines are built.

    Raises:
        SSDiffError: on options that do not go together, or as the export does.
    """
    asked: dict[Precision, bool] = {"fp16": fp16, "bf16": bf16, "int8": int8}
    low = tuple(precision for precision in asked if asked[precision])
    if (weights is None) != (output is None):
        raise InputError(
            "`weights` and `output` go together; give both, or neither to export the shipped "
            "bundles again."
        )
    if weights is None and not low:
        raise InputError(
            "The shipped bundles have graphs in fp32; give `fp16`, `bf16` or `int8` to export them "
            "with more, or `weights` and `output` for another bundle."
        )
    check_calibration(int8, calibration)
    plans = _engines(engine, gpus, device or 0, progress)
    for name in _sources(weights, calibration):
        weights_file(name)
        source = open_bundle(name).manifest if is_bundle(name) else None
        said = {name: value for name, value in options.items() if value is not None}
        given = (defaults_of(source) if source else {}) | {"calibration": calibration}
        if source and said.get("sampler", source.sampler.name) != source.sampler.name:
            del given["timesteps"], given["back_projection"]  # which suit the other sampler
        given |= said
        kind = sensor or (source.sensor.name if source else None)
        if kind is None:
            raise InputError(
                "`sensor` is missing; name the sensor that the weights are for, such as wv3."
            )
        target = user_bundle(name) if output is None else Path(output)
        if output is None:
            progress.note(f"{name} is exported to {target}, where ssdiff-trt run finds it")
            shipped_manifest = SHIPPED / f"{name}.ssdiff" / MANIFEST
            given |= {"overwrite": True, "extends": sha256_of(shipped_manifest)}
            make_cache(target.parent)
        bundle = export_bundle(name, kind, target, precisions=low, progress=progress, **given)
        built: tuple[Precision, ...] = low or ("fp32",)
        for precision in built:
            for plan in plans(bundle, precision):
                bundle = _build(bundle, plan, device or 0, progress)
        yield bundle


def _sources(weights: str | None, calibration: str | None) -> list[str]:
    """Names of what to export; by default the shipped bundles, or the one that samples are of."""
    if weights is not None:
        return [weights]
    if calibration is None:
        return shipped()
    about = read_about(calibration)
    if about.bundle not in shipped():
        raise InputError(
            f"{calibration} has samples of {about.bundle}, which is not a shipped bundle; give its "
            "`weights` and `output`."
        )
    return [about.bundle]


def _engines(
    engine: str, gpus: str | None, device: int, progress: Progress
) -> Callable[[Bundle, Precision], list[Plan]]:
    """What engines to build for a bundle, in a precision."""
    if gpus and engine != "tensorrt-rtx":
        raise InputError(
            "`gpu` is for engines of TensorRT-RTX, which alone builds for GPUs that are not here; "
            "add `engine=tensorrt-rtx`."
        )
    if engine == "auto":
        there = [flavour for flavour in FLAVOURS if installed(flavour)]
        lack = why_no_cuda() or why_no_package() or (None if there else "no TensorRT is installed")
        if lack:

            def later(bundle: Bundle, precision: Precision) -> list[Plan]:
                if precision != "fp32":
                    progress.note(
                        f"No engine in {precision} is built here ({lack}); ssdiff-trt run builds "
                        "it at its first run where there is a GPU"
                    )
                return []

            return later
        engine = there[0]
    if engine == "none":
        return lambda bundle, precision: []
    flavour: Flavour = "tensorrt" if engine == "tensorrt" else "tensorrt-rtx"
    import_tensorrt(flavour)
    here = None if gpus or why_no_cuda() else open_cuda(device)
    targets: list[Device | str | None] = (
        list(gpus.split(",")) if gpus else [here.device if here else None]
    )

    def plans(bundle: Bundle, precision: Precision) -> list[Plan]:
        batch = batch_on(here, precision)
        return [Plan(bundle, flavour, precision, target, batch) for target in targets]

    for target in targets:
        check_target(flavour, target)
    return plans


def _build(bundle: Bundle, plan: Plan, device: int, progress: Progress) -> Bundle:
    """Build an engine into a bundle; if it is for this machine, into the user's cache too."""
    began, key = time.monotonic(), plan.key
    if isinstance(plan.target, Device):
        engine = cached_engine(plan, open_cuda(device), progress)
    else:
        engine, _ = plan.build(progress)
    bundle = add_engine(bundle, engine_file(key), engine)
    progress.note(
        f"Engine for {key.gpu} in {key.precision}: {len(engine) / 2**20:.1f} MiB, "
        f"{time.monotonic() - began:.1f} s"
    )
    return bundle
