"""Printing the content of a bundle, and the result of its verification."""

from __future__ import annotations

from rich import box
from rich.table import Table

from ssdiff_trt.runtime.bundle.measured import Parity, Quantisation
from ssdiff_trt.runtime.bundle.store import Bundle, names_of_bands
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.parity.layers import Layers
from ssdiff_trt.runtime.parity.verification import Verification
from ssdiff_trt.runtime.progress import print_text


def summary(bundle: Bundle) -> str:
    """Name, bands and precisions of a bundle, in one line."""
    bands = counted(bundle.manifest.model.bands, "band") + names_of_bands(bundle)
    precisions = ", ".join(dict.fromkeys(graph.precision for graph in bundle.manifest.graphs))
    return f"{bundle.manifest.name}: {bands}; {precisions}"


def describe(bundle: Bundle) -> None:
    """Print the manifest of a bundle on standard output."""
    manifest = bundle.manifest
    model, sensor, sampler, source = (
        manifest.model,
        manifest.sensor,
        manifest.sampler,
        manifest.provenance,
    )
    metrics = "\n".join(f"{name}: {value}" for name, value in source.metrics.items())
    verified = ", ".join(parity.precision for parity in manifest.parity)
    rows = {
        "bundle": f"{manifest.name} ({bundle.path})",
        "sha256": bundle.sha256,
        "model": f"{model.network}, {model.bands} bands, tiles of {model.tile} pixels, 4 x",
        "sensor": f"{sensor.name}, full scale {sensor.full_scale:g}",
        "bands": ", ".join(sensor.bands),
        "sampler": f"{sampler.name}, timesteps {', '.join(map(str, sampler.timesteps))}, "
        f"back-projection {sampler.back_projection:g}",
        "verified": f"each sampling step in {verified}, within the limits below",
        "weights": f"{source.weights}, sha256 {source.weights_sha256}",
        "trained on": source.training_data,
        "licence": source.licence,
        **({"attribution": source.attribution} if source.attribution else {}),
        "exported": f"{source.created} by {source.exporter}",
        **({"judged": f"on real tiles: {manifest.judged}"} if manifest.judged else {}),
        **({"metrics": metrics} if metrics else {}),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    print_text(table)
    graphs = Table("graph", "precision", "form", "opset", box=box.SIMPLE_HEAD)
    for graph in manifest.graphs:
        graphs.add_row(graph.file, graph.precision, graph.form, str(graph.opset))
    print_text(graphs)
    for lowering in manifest.lowering:
        print_text(
            f"In {lowering.precision} the largest magnitude on real tiles is "
            f"{lowering.largest:.4g} ({lowering.where}); in fp32 stay:"
        )
        for line in lowering.kept:
            print_text(f"  {line}")
    if manifest.quantisation:
        print_quantisation(manifest.quantisation)
    for parity in manifest.parity:
        print_parity(parity)


def print_quantisation(quantisation: Quantisation) -> None:
    """Print which layers are in INT8, how they were calibrated, and the quality they reach."""
    steps = ", ".join(map(str, quantisation.timesteps))
    verdict, budget = quantisation.verdict, quantisation.budget
    print_text(
        f"\nINT8 is calibrated on {quantisation.tiles} tiles of "
        f"{'; '.join(quantisation.sources)} at t = {steps} ({quantisation.method}). "
        f"In int8: {', '.join(quantisation.groups)}; left out for the budget: "
        f"{', '.join(quantisation.excluded) or 'nothing'}."
    )
    print_text(
        f"On {counted(verdict.tiles, 'tile')} held out: {verdict}; allowed: "
        f"{budget.loss:.1%} of ERGAS and SAM, {budget.psnr:g} dB."
    )


def print_parity(parity: Parity) -> None:
    """Print the deviation from the reference at every step, and the PSNR of the final image."""
    limits = parity.limits
    measure = "rmse" if limits.max is limits.rounding is None else "max"
    measure_name = {"max": "largest", "rmse": "root mean square"}[measure]
    limit = getattr(limits, measure)
    allowed = [f"{limit:.0e}"] if limit is not None else []
    if limits.rounding is not None:
        allowed.append(f"{limits.rounding:g} times that of the reference in fp32")
    allowed += [f"{limits.psnr:g} dB at the end"] if limits.psnr is not None else []
    print_text(
        f"\nParity of {parity.precision} with {parity.reference}: {measure_name} deviation of each "
        f"step's image, as a fraction of full scale; allowed: {', '.join(allowed)}."
    )
    for trajectory in parity.trajectories:
        rows = [
            {**({"reference fp32": step.rounding} if step.rounding else {}), **step.deviations}
            for step in trajectory.steps
        ]
        table = Table("step", box=None, padding=(0, 2, 0, 0))
        for name in rows[0]:
            table.add_column(name.replace(" ", "\n"))
        for step, row in zip(trajectory.steps, rows, strict=True):
            deviations = (getattr(value, measure) for value in row.values())
            cells = (f"{value:.1e}".replace("e-0", "e-") for value in deviations)
            table.add_row(f"t = {step.t}", *cells)
        table.add_row("PSNR, dB", *(f"{value.psnr:.0f}" for value in rows[-1].values()))
        print_text(f"\nOn {trajectory.inputs} tiles:", table)


def print_layers(layers: Layers) -> None:
    """Print the first layer that differs, with those before it, or the one that differs most."""
    compared = f"{counted(len(layers.layers), 'layer')} compared at t = {layers.t:g}"
    if (first := layers.first) is None:
        most = max(layers.layers, key=lambda layer: layer.difference)
        print_text(
            f"\n{compared}: none differs by more than {layers.limit:g} of its own size in fp32; "
            f"most by {most.difference:.1e}: {most.name} ({most.operator})."
        )
        return
    table = Table("layer", "operator", "difference", box=None, padding=(0, 2, 0, 0))
    for layer in layers.layers[max(first - 4, 0) : first + 1]:
        table.add_row(layer.name, layer.operator, f"{layer.difference:.1e}")
    print_text(
        f"\n{compared}: {layers.layers[first].name} is the first that differs by more than "
        f"{layers.limit:g} of its own size in fp32.",
        table,
    )


def print_verification(verification: Verification) -> None:
    """Print the result of a verification on standard output."""
    print_text(f"{verification.bundle}: {verification.backend}")
    print_parity(verification.parity)
    if verification.layers:
        print_layers(verification.layers)
    for fault in verification.faults:
        print_text(f"FAILED: {fault}")
    print_text("passed" if verification.passed else "failed")
