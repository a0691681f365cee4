"""Export of weights as a bundle; nothing is written unless all graphs pass their checks."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssdiff_ref.network.checkpoint import load_checkpoint, released_tensors, weights_file
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.calibration.ranges import Method
from ssdiff_trt.calibration.samples import check_fits, digest, read_about
from ssdiff_trt.export.graph import WeightsFile, export_graph, opset, strip_metadata
from ssdiff_trt.export.judgement import judge
from ssdiff_trt.export.parity import measure_lowering, measure_parity
from ssdiff_trt.runtime.arguments import full_scale_of, share_of, whole
from ssdiff_trt.runtime.bundle.manifest import (
    Graph,
    Manifest,
    Model,
    Provenance,
    SamplerDefaults,
    SensorScale,
    graph_io,
    kinds,
)
from ssdiff_trt.runtime.bundle.measured import Budget, Lowering
from ssdiff_trt.runtime.bundle.store import (
    ENGINES,
    MANIFEST,
    Bundle,
    is_bundle,
    open_bundle,
    strange_files,
)
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.files import (
    atomic_write,
    behind_link,
    check_parent,
    replace_folder,
    sha256_of,
)
from ssdiff_trt.runtime.options import Precision, Sampler
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import AUTHORS_TIMESTEPS, Schedule, make_schedule
from ssdiff_trt.runtime.scratch import scratch_folder
from ssdiff_trt.runtime.sensors import find_sensor


def export_bundle(
    weights: str | Path,
    sensor: str,
    output: str | Path,
    *,
    precisions: Sequence[Precision] = (),
    weights_key: str | None = None,
    calibration: str | Path | None = None,
    ranges: Method = "minmax",
    max_ergas_loss: float = 0.01,
    tile: int = 64,
    full_scale: float | None = None,
    sampler: Sampler = "consistent",
    timesteps: Sequence[int] | None = None,
    back_projection: float = 0,
    training_data: str = "not stated",
    licence: str = "not stated",
    attribution: str = "",
    metrics: Mapping[str, float] | None = None,
    extends: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Export weights in the released format as a bundle.

    Args:
        weights: checkpoint, ``.safetensors`` or ``.pt``, or a bundle whose weights to export.
        sensor: a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`; it sets the full scale and
            the band names.
        output: directory to write, conventionally ``NAME.ssdiff``. It appears only after every
            graph has passed the ONNX checker and the parity check of
            :mod:`ssdiff_trt.export.parity`.
        precisions: of the graphs to export in addition to fp32. ``int8`` also exports fp16, which
            the layers that are not quantised use.
        weights_key: where in the file the weights are, such as ``ema``; needed if there are
            several; see :func:`ssdiff_ref.network.checkpoint.load_checkpoint`.
        calibration: samples for int8, from :func:`ssdiff_trt.calibration.collection.collect`.
        ranges: method to find the quantisation ranges for int8; see
            :func:`ssdiff_trt.calibration.ranges.measure_ranges`.
        max_ergas_loss: largest relative increase of ERGAS and of SAM by int8, on held-out tiles.
        tile: height and width of a tile in pixels of PAN, a multiple of 16 from 16 to 512.
        full_scale: digital number that inputs are divided by; that of the sensor by default.
        sampler: the bundle's default sampler.
        timesteps: the bundle's default timesteps; default: the ten of the authors' code, since
            nothing is known of how few will do for these weights.
        back_projection: the bundle's default; see :mod:`ssdiff_trt.runtime.tiles.backprojection`.
        training_data: description of the training data, for the manifest.
        licence: of the weights, for the manifest.
        attribution: credits that licences of the training data ask for, for the manifest.
        metrics: scores of the weights, for the manifest.
        extends: sha256 of the manifest of the shipped bundle that is exported with more graphs.
        overwrite: replace an existing bundle.
        progress: receives progress updates.

    Raises:
        SSDiffError: on unusable input, if the parity check fails, or if int8 exceeds its budget.
    """
    output = Path(output)
    check_bundle_target(output, overwrite)
    requested: dict[Precision, None] = dict.fromkeys(("fp32", *precisions))
    check_calibration("int8" in requested, calibration)
    budget = Budget.allowing(max_ergas_loss)
    tile = whole("tile", tile)
    if not 16 <= tile <= 512 or tile % 16:
        raise InputError(
            f"The tile size is {tile} pixels, expected a multiple of 16 from 16 to 512; change "
            "`tile`."
        )
    if full_scale is not None:
        full_scale = full_scale_of("full_scale", full_scale)
    progress = progress or Progress()
    name, sha256 = _origin(weights)
    weights = weights_file(weights)
    checkpoint = load_checkpoint(weights, weights_key)
    net = checkpoint.net
    checkpoint.describe(progress)
    record = find_sensor(sensor)
    bands = record.band_names(net.bands)
    scale = SensorScale(name=sensor, bands=bands, full_scale=full_scale or record.full_scale)
    schedule = make_schedule(AUTHORS_TIMESTEPS if timesteps is None else timesteps, sampler)
    _report_schedule(schedule, timesteps is None, progress)
    if calibration is not None:
        tensors = {key: value.numpy() for key, value in released_tensors(net).items()}
        about = read_about(calibration)
        check_fits(about, calibration, output.stem, net.bands, tile, digest(tensors))
    place = behind_link(output)
    with scratch_folder(place, "output") as scratch:
        directory = scratch / place.name
        directory.mkdir()
        # INT8 graphs are FP16 and FP32 graphs with Q/DQ pairs, not exports of the network.
        if calibration is not None:
            requested["fp16"] = None
        exported = [precision for precision in requested if precision != "int8"]
        with progress:
            progress.start("Graphs", sum(len(kinds(precision)) for precision in exported))
            graphs = tuple(
                graph
                for precision in exported
                for graph in _write_graphs(net, precision, tile, directory, progress)
            )
        manifest = Manifest(
            name=output.name.removesuffix(".ssdiff"),
            model=Model(bands=net.bands, tile=tile),
            sensor=scale,
            sampler=SamplerDefaults(
                name=sampler,
                timesteps=schedule.timesteps,
                back_projection=share_of("back_projection", back_projection),
            ),
            graphs=graphs,
            files={path.name: sha256_of(path) for path in sorted(directory.iterdir())},
            provenance=Provenance(
                weights=f"{name} ({checkpoint.key})" if checkpoint.key else name,
                weights_sha256=sha256,
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                exporter=_versions(),
                training_data=training_data,
                licence=licence,
                attribution=attribution,
                metrics=dict(metrics or {}),
                extends=extends,
            ),
        )
        written = Bundle(directory, manifest, sha256="")
        lowering = tuple(
            measure_lowering(net, written, precision)
            for precision in exported
            if precision != "fp32"
        )
        for result in lowering:
            _report_lowering(result, progress)
        if calibration is not None:
            from ssdiff_trt.export.int8 import add_int8

            int8_graphs, quantisation = add_int8(written, calibration, ranges, budget, progress)
            manifest = manifest.model_copy(
                update={
                    "graphs": (*graphs, *int8_graphs),
                    "files": {path.name: sha256_of(path) for path in sorted(directory.iterdir())},
                    "quantisation": quantisation,
                }
            )
            written = Bundle(directory, manifest, sha256="")
        with progress:
            parity, left_out = measure_parity(net, written, written.precisions, progress)
        manifest = _without(left_out, written).model_copy(
            update={"parity": parity, "lowering": lowering, "judged": judge(written)}
        )
        _report_judgement(manifest, progress)
        _write_manifest(manifest, directory)
        replace_folder(directory, place)
    return open_bundle(output)


def _write_manifest(manifest: Manifest, directory: Path) -> None:
    with atomic_write(directory / MANIFEST) as unfinished:
        unfinished.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def add_engine(bundle: Bundle, name: str, engine: bytes) -> Bundle:
    """Add a TensorRT engine to a bundle, and its sha256 to the manifest.

    Args:
        bundle: bundle that the engine was built from.
        name: file name of the engine; see
            :func:`ssdiff_trt.runtime.backends.tensorrt.engine_cache.engine_file`.
        engine: serialised engine.

    Returns:
        The bundle, opened again.

    Raises:
        OutputError: if the bundle cannot be written to.
    """
    with atomic_write(bundle.path / ENGINES / name) as unfinished:
        unfinished.write_bytes(engine)
    engines = bundle.manifest.engines | {name: hashlib.sha256(engine).hexdigest()}
    _write_manifest(bundle.manifest.model_copy(update={"engines": engines}), bundle.path)
    return open_bundle(bundle.path)


def _without(graphs: Sequence[Graph], bundle: Bundle) -> Manifest:
    """Delete graphs, and give the manifest without them."""
    names = [graph.file for graph in graphs]
    for name in names:
        (bundle.path / name).unlink()
    manifest = bundle.manifest
    files = {name: sha256 for name, sha256 in manifest.files.items() if name not in names}
    kept = tuple(graph for graph in manifest.graphs if graph.file not in names)
    return manifest.model_copy(update={"graphs": kept, "files": files})


def check_calibration(int8: bool, calibration: str | Path | None) -> None:
    """Check that calibration samples are given if and only if INT8 is requested.

    Raises:
        SSDiffError: otherwise.
    """
    if calibration is not None and not int8:
        raise InputError(
            f"`calibration={calibration}` is used for INT8 only; add `int8`, or omit it."
        )
    if int8 and calibration is None:
        raise InputError(
            "`int8` needs calibration samples; create them with ssdiff-calibrate collect PAN MS "
            "-o samples.npz and pass `calibration=samples.npz`."
        )


def defaults_of(manifest: Manifest) -> dict[str, Any]:
    """Options of :func:`export_bundle` that a bundle was exported with, to export it again."""
    return {
        "tile": manifest.model.tile,
        "full_scale": manifest.sensor.full_scale,
        "sampler": manifest.sampler.name,
        "timesteps": manifest.sampler.timesteps,
        "back_projection": manifest.sampler.back_projection,
        "training_data": manifest.provenance.training_data,
        "licence": manifest.provenance.licence,
        "attribution": manifest.provenance.attribution,
        "metrics": manifest.provenance.metrics,
    }


def _origin(weights: str | Path) -> tuple[str, str]:
    """Name and sha256 of the file of weights; of a bundle, those that it was exported from."""
    if is_bundle(weights):
        source = open_bundle(weights).manifest.provenance
        return source.weights, source.weights_sha256
    path = weights_file(weights)
    return path.name, sha256_of(path)


def check_bundle_target(output: Path, overwrite: bool) -> None:
    """Check that a bundle can be written to ``output``.

    Raises:
        SSDiffError: if it exists and may not be replaced, or nothing can be written there.
    """
    output = behind_link(output)
    if os.path.exists(output):
        if not overwrite:
            raise InputError(f"{output} exists; choose another name or pass `overwrite`.")
        if not os.path.isfile(output / MANIFEST):
            raise InputError(f"{output} exists and is not a bundle; it will not be overwritten.")
        if strange := strange_files(output):
            raise InputError(
                f"{output} holds {strange[0]}, which is no part of a bundle; move it elsewhere, or "
                "give another `output`."
            )
    check_parent(output)


def _versions() -> str:
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("ssdiff-trt", "torch", "onnx", "onnxruntime")
    )
    return f"{packages}, Python {platform.python_version()}"


def _report_schedule(schedule: Schedule, assumed: bool, progress: Progress) -> None:
    visited = ", ".join(map(str, schedule.timesteps))
    why = " (as in the authors' code; measure whether fewer `timesteps` do as well)"
    steps = counted(len(schedule.steps), "step")
    progress.note(
        f"Default of the bundle: {schedule.sampler} sampler, {steps} at t = {visited}"
        f"{why if assumed else ''}"
    )


def _report_judgement(manifest: Manifest, progress: Progress) -> None:
    assert manifest.judged is not None
    progress.note(f"On real tiles (Sentinel-2, truth known): {manifest.judged}")
    for warning in manifest.warnings():
        progress.warn(warning)


def _report_lowering(lowering: Lowering, progress: Progress) -> None:
    progress.note(f"All modules are in {lowering.precision}, except these, which stay in fp32:")
    for line in lowering.kept:
        progress.note(f"  {line}")
    progress.note(
        f"Largest magnitude on real trajectories: {lowering.largest:.4g} ({lowering.where})"
    )


def _write_graphs(
    net: SSNet, precision: Precision, tile: int, directory: Path, progress: Progress
) -> tuple[Graph, ...]:
    """Write the graphs of a precision, and the file of constants that they share."""
    import onnx

    weights = WeightsFile(directory / f"weights.{precision}.safetensors", net, precision)
    models, graphs = [], []
    for role, form in kinds(precision):
        inputs, outputs = graph_io(role, Model(bands=net.bands, tile=tile))
        progress.detail(f"Graph: {role}, {precision}, {form}")
        model = export_graph(net, role, precision, form, tile)
        strip_metadata(model)
        weights.add(model)
        graph = Graph(
            file=f"{role}.{precision}.{form}.onnx",
            weights=weights.path.name,
            role=role,
            precision=precision,
            form=form,
            opset=opset(form, precision),
            inputs=inputs,
            outputs=outputs,
        )
        models.append(model)
        graphs.append(graph)
        progress.advance(1)
    weights.write()
    for graph, model in zip(graphs, models, strict=True):
        onnx.save(model, directory / graph.file)
        onnx.checker.check_model(directory / graph.file, full_check=True)
    return tuple(graphs)
