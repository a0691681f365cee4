"""Telling a person what is in a bundle."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from runtime.bundle import Bundle, Deviation, Parity


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
        **{f"metrics, {name}": str(value) for name, value in source.metrics.items()},
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(highlight=False)
    console.print(table)
    graphs = Table("graph", "precision", "form", "opset", box=box.SIMPLE_HEAD)
    for graph in manifest.graphs:
        graphs.add_row(graph.file, graph.precision, graph.form, str(graph.opset))
    console.print(graphs)
    if manifest.parity:
        print_parity(manifest.parity, console)


def print_parity(parity: Parity, console: Console) -> None:
    """Print the deviations at every step."""
    console.print(
        f"Deviation from the reference ({parity.reference}), as a fraction of full scale: largest "
        f"({parity.tolerance:.0e} is allowed), RMSE, and PSNR in dB."
    )
    for trajectory in parity.trajectories:
        names = list(trajectory.image)
        table = Table("step", box=None, padding=(0, 2, 0, 0))
        for name in names:
            table.add_column(name, min_width=15)
        steps = [(f"t = {step.t}", step.deviations) for step in trajectory.steps]
        for place, deviations in [*steps, ("image", trajectory.image)]:
            table.add_row(place, *(_cell(deviations[name]) for name in names))
        console.print(f"\nOn {trajectory.inputs} tiles:", table, sep="\n")


def _cell(found: Deviation) -> str:
    return f"{found.max:.1e} {found.rmse:.0e} {found.psnr:.0f}".replace("e-0", "e-")
