"""Telling a person what is in a bundle."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from ssdiff_trt.runtime.bundle.manifest import Parity, Quantisation
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import counted
from ssdiff_trt.runtime.parity.verification import Proof


def describe(bundle: Bundle) -> None:
    """Print the manifest of a bundle on standard output."""
    manifest = bundle.manifest
    model, sensor, sampler, source = (
        manifest.model,
        manifest.sensor,
        manifest.sampler,
        manifest.provenance,
    )
    rows = {
        "bundle": f"{manifest.name} ({bundle.path})",
        "sha256": bundle.sha256,
        "model": f"{model.network}, {model.bands} bands, tiles of {model.tile} pixels, 4 x",
        "sensor": f"{sensor.name}, full scale {sensor.full_scale:g}",
        "bands": ", ".join(sensor.bands),
        "sampler": f"{sampler.name}, timesteps {', '.join(map(str, sampler.timesteps))}",
        "weights": f"{source.weights}, sha256 {source.weights_sha256}",
        "trained on": source.training_data,
        "licence": source.licence,
        "exported": f"{source.created} by {source.exporter}",
        "metrics": "\n".join(f"{name}: {value}" for name, value in source.metrics.items())
        or "none",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(highlight=False)
    console.print(table)
    graphs = Table("graph", "precision", "form", "opset", box=box.SIMPLE_HEAD)
    for graph in manifest.graphs:
        graphs.add_row(graph.file, graph.precision, graph.form, str(graph.opset))
    console.print(graphs)
    for lowering in manifest.lowering:
        console.print(
            f"In {lowering.precision} the largest magnitude on real tiles is "
            f"{lowering.largest:.4g} ({lowering.where}); in fp32 stay:"
        )
        for line in lowering.kept:
            console.print(f"  {line}")
    if manifest.quantisation:
        print_quantisation(manifest.quantisation, console)
    for parity in manifest.parity:
        print_parity(parity, console)


def print_quantisation(made: Quantisation, console: Console) -> None:
    """Print what is in INT8, and the verdict on it."""
    steps = ", ".join(map(str, made.timesteps))
    console.print(
        f"\nINT8 is calibrated on {made.tiles} tiles of {'; '.join(made.sources)} at t = {steps} "
        f"({made.method}). In int8: {', '.join(made.groups)}; left out for the budget: "
        f"{', '.join(made.excluded) or 'nothing'}."
    )
    console.print(
        f"On {counted(made.verdict.tiles, 'tile')} held out: {made.verdict}; allowed: "
        f"{made.budget.loss:.1%} of ERGAS and SAM, {made.budget.psnr:g} dB."
    )


def print_parity(parity: Parity, console: Console) -> None:
    """Print the deviations at every step."""
    limits = parity.limits
    measure = "max" if limits.max is not None else "rmse"
    shown = {"max": "largest", "rmse": "root mean square"}[measure]
    limit = getattr(limits, measure)
    allowed = [f"{limit:.0e}"] if limit is not None else []
    allowed += [f"{limits.psnr:g} dB at the end"] if limits.psnr is not None else []
    console.print(
        f"\nParity of {parity.precision} with {parity.reference}: {shown} deviation of each step's "
        f"image, as a fraction of full scale; allowed: {', '.join(allowed)}."
    )
    for trajectory in parity.trajectories:
        names = list(trajectory.steps[0].deviations)
        table = Table("step", box=None, padding=(0, 2, 0, 0))
        for name in names:
            table.add_column(name.replace(" ", "\n"))
        for step in trajectory.steps:
            found = (getattr(step.deviations[name], measure) for name in names)
            cells = (f"{value:.1e}".replace("e-0", "e-") for value in found)
            table.add_row(f"t = {step.t}", *cells)
        last = trajectory.steps[-1].deviations
        table.add_row("PSNR, dB", *(f"{last[name].psnr:.0f}" for name in names))
        console.print(f"\nOn {trajectory.inputs} tiles:", table, sep="\n")


def print_proof(proof: Proof) -> None:
    """Print what came of a verification on standard output."""
    console = Console(highlight=False)
    console.print(f"{proof.bundle} by {proof.backend}")
    print_parity(proof.parity, console)
    for fault in proof.faults:
        console.print(f"FAILED: {fault}")
    console.print("passed" if proof.passed else "failed")
