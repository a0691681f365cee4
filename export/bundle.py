"""Making a bundle: weights in, a checked directory out, or nothing."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssdiff_ref.network.checkpoint import load_checkpoint, released_tensors, weights_file
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.calibration.ranges import Method
from ssdiff_trt.calibration.samples import check_fits, digest, read_about
from ssdiff_trt.export.graph import WeightsFile, export_graph, opset, strip
from ssdiff_trt.export.parity import measure_lowering, measure_parity
from ssdiff_trt.runtime.bundle.manifest import (
    Budget,
    Graph,
    Lowering,
    Manifest,
    Model,
    Precision,
    Provenance,
    SamplerDefaults,
    SensorScale,
    graph_io,
    kinds,
)
from ssdiff_trt.runtime.bundle.store import MANIFEST, Bundle, open_bundle, sha256_of
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import Sampler, make_schedule
from ssdiff_trt.runtime.sensors import find_sensor

DEFAULT_TIMESTEPS = (999,)
"""One step from pure noise: more change ERGAS on the example scene by under 1 %."""


def export_bundle(
    weights: str | Path,
    sensor: str,
    output: str | Path,
    *,
    precisions: Sequence[Precision] = (),
    calibration: str | Path | None = None,
    ranges: Method = "minmax",
    max_ergas_loss: float = 0.01,
    tile: int = 64,
    full_scale: float | None = None,
    sampler: Sampler = "consistent",
    timesteps: Sequence[int] = DEFAULT_TIMESTEPS,
    training_data: str = "not stated",
    licence: str = "not stated",
    metrics: Mapping[str, float] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Export released-format weights as a bundle.

    Args:
        weights: checkpoint, ``.safetensors`` or ``.pt``, or a bundle to export anew.
        sensor: a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`; it sets the full scale and
            the band names.
        output: the directory to make, by custom ``NAME.ssdiff``. It appears only when every graph
            has passed the ONNX checker and the parity of :mod:`ssdiff_trt.export.parity`.
        precisions: of graphs besides those in fp32. With ``int8`` comes fp16, for what is not int8.
        calibration: samples for int8, from :func:`ssdiff_trt.calibration.collection.collect`.
        ranges: how they are found; see :func:`ssdiff_trt.calibration.ranges.measure_ranges`.
        max_ergas_loss: that int8 may cost, of ERGAS and of SAM, on tiles that were held out.
        tile: height and width of a tile in pixels, a multiple of 16.
        full_scale: digital number that inputs are divided by, if not the sensor's.
        sampler: default of the bundle.
        timesteps: default of the bundle.
        training_data: what the weights were trained on, for the manifest.
        licence: of the weights, for the manifest.
        metrics: what they score, for the manifest.
        overwrite: replace an existing bundle.
        progress: told how work goes.

    Raises:
        SSDiffError: on unusable input, when parity fails, or when int8 costs too much.
    """
    output = Path(output)
    check_bundle_target(output, overwrite)
    wanted: dict[Precision, None] = dict.fromkeys(("fp32", *precisions))
    check_calibration("int8" in wanted, calibration)
    budget = Budget.allowing(max_ergas_loss)
    if not 16 <= tile <= 512 or tile % 16:
        raise SSDiffError(
            f"A tile of {tile} pixels does not work; give a multiple of 16, from 16 to 512."
        )
    if full_scale is not None and not full_scale > 0:
        raise SSDiffError(f"A full scale of {full_scale:g} does not work; give a number above 0.")
    progress = progress or Progress()
    weights = weights_file(weights)
    checkpoint = load_checkpoint(weights)
    net = checkpoint.net
    if checkpoint.unused:
        progress.note(f"{weights}: {len(checkpoint.unused)} tensors are never read by the network")
        progress.detail(", ".join(checkpoint.unused))
    known = find_sensor(sensor)
    bands = known.band_names(net.bands)
    scale = SensorScale(name=sensor, bands=bands, full_scale=full_scale or known.full_scale)
    schedule = make_schedule(timesteps, sampler)
    if calibration is not None:
        tensors = {key: value.numpy() for key, value in released_tensors(net).items()}
        about = read_about(calibration)
        check_fits(about, calibration, output.stem, net.bands, tile, digest(tensors))
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        directory = Path(scratch) / output.name
        directory.mkdir()
        # INT8 is made from FP16, and is not a lowering of the network itself.
        if calibration is not None:
            wanted["fp16"] = None
        exported = [precision for precision in wanted if precision != "int8"]
        graphs = tuple(
            graph
            for precision in exported
            for graph in _write_graphs(net, precision, tile, directory, progress)
        )
        manifest = Manifest(
            name=output.name.removesuffix(".ssdiff"),
            model=Model(bands=net.bands, tile=tile),
            sensor=scale,
            sampler=SamplerDefaults(name=sampler, timesteps=schedule.timesteps),
            graphs=graphs,
            files={path.name: sha256_of(path) for path in sorted(directory.iterdir())},
            provenance=Provenance(
                weights=weights.name,
                weights_sha256=sha256_of(weights),
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                exporter=_versions(),
                training_data=training_data,
                licence=licence,
                metrics=dict(metrics or {}),
            ),
        )
        written = Bundle(directory, manifest, sha256="")
        lowering = tuple(
            measure_lowering(net, written, precision)
            for precision in exported
            if precision != "fp32"
        )
        for found in lowering:
            _tell(found, progress)
        if calibration is not None:
            from ssdiff_trt.export.int8 import add_int8

            more, quantisation = add_int8(written, calibration, ranges, budget, progress)
            manifest = manifest.model_copy(
                update={
                    "graphs": (*graphs, *more),
                    "files": {path.name: sha256_of(path) for path in sorted(directory.iterdir())},
                    "quantisation": quantisation,
                }
            )
            written = Bundle(directory, manifest, sha256="")
        with progress:
            parity = measure_parity(net, written, written.precisions, progress)
        proven = manifest.model_copy(update={"parity": parity, "lowering": lowering})
        (directory / MANIFEST).write_text(proven.model_dump_json(indent=1) + "\n")
        if output.exists():
            shutil.rmtree(output)
        directory.rename(output)
    return open_bundle(output)


def check_calibration(int8: bool, calibration: str | Path | None) -> None:
    """That what INT8 needs is given, and nothing that it does not.

    Raises:
        SSDiffError: if not.
    """
    if calibration is not None and not int8:
        raise SSDiffError(f"--calibration {calibration} is for INT8; add --int8, or leave it out.")
    if int8 and calibration is None:
        raise SSDiffError(
            "--int8 needs --calibration, samples of what the network is given; make them with "
            "ssdiff-calibrate collect PAN MS -o samples.npz."
        )


def defaults_of(manifest: Manifest) -> dict[str, Any]:
    """What an export says of a bundle, to export it anew."""
    return {
        "tile": manifest.model.tile,
        "full_scale": manifest.sensor.full_scale,
        "sampler": manifest.sampler.name,
        "timesteps": manifest.sampler.timesteps,
        "training_data": manifest.provenance.training_data,
        "licence": manifest.provenance.licence,
        "metrics": manifest.provenance.metrics,
    }


def check_bundle_target(output: Path, overwrite: bool) -> None:
    """That a bundle can be written there.

    Raises:
        SSDiffError: if not.
    """
    if output.exists() and not overwrite:
        raise SSDiffError(f"{output} exists; choose another name or pass --overwrite.")
    if output.exists() and not (output / MANIFEST).is_file():
        raise SSDiffError(f"{output} exists and is not a bundle; it will not be overwritten.")
    if not output.parent.is_dir():
        raise SSDiffError(f"There is no directory {output.parent} to write the bundle into.")


def _versions() -> str:
    ours = ", ".join(
        f"{name} {version(name)}" for name in ("ssdiff-trt", "torch", "onnx", "onnxruntime")
    )
    return f"{ours}, Python {platform.python_version()}"


def _tell(lowering: Lowering, progress: Progress) -> None:
    progress.note(f"In {lowering.precision}, all but these, which stay in fp32:")
    for line in lowering.kept:
        progress.note(f"  {line}")
    progress.note(
        f"Largest magnitude on real trajectories: {lowering.largest:.4g} ({lowering.where})"
    )


def _write_graphs(
    net: SSNet, precision: Precision, tile: int, directory: Path, progress: Progress
) -> tuple[Graph, ...]:
    """Write the graphs of a precision, and the constants that they share."""
    import onnx

    weights = WeightsFile(directory / f"weights.{precision}.safetensors", net, precision)
    models, graphs = [], []
    for role, form in kinds(precision):
        inputs, outputs = graph_io(role, Model(bands=net.bands, tile=tile))
        progress.detail(f"Graph: {role}, {precision}, {form}")
        model = export_graph(net, role, precision, form, tile)
        strip(model)
        weights.take(model)
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
    weights.write()
    for graph, model in zip(graphs, models, strict=True):
        onnx.save(model, directory / graph.file)
        onnx.checker.check_model(directory / graph.file, full_check=True)
    return tuple(graphs)
