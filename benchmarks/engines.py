"""Size and memory of engines by their batches, without a GPU: ``engines.json`` and a table.

    python -m benchmarks.engines BUNDLE [BUNDLE ...] -o docs

TensorRT-RTX builds an engine of the portable step graph for SM 8.6, and its verbose log says how
much memory the engine will compute in.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.output import output_option
from ssdiff_trt.runtime.bundle.store import Bundle, open_bundle
from ssdiff_trt.runtime.options import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
BATCHES = ((1, 8, 32), (32,), (16,), (8,), (4,), (2,), (1,))
"""Batches of an engine: one, or the smallest, the one that it is tuned for and the largest."""


def measure(bundle: Bundle, precision: Precision, batches: tuple[int, ...]) -> dict[str, Any]:
    """Build an engine and read its log."""
    import tensorrt_rtx as trt

    lines: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            lines.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    graph = bundle.graph("step", precision, "portable")
    if not parser.parse_from_file(str(bundle.path / graph.file)):
        raise click.ClickException(str(parser.get_error(0)))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        if -1 in tensor.shape:
            shapes = [(size, *tuple(tensor.shape)[1:]) for size in batches]
            profile.set_shape(tensor.name, *(shapes if len(shapes) == 3 else shapes * 3))
    config.add_optimization_profile(profile)
    began = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    (scratch,) = re.findall(r"Max Scratch Memory: (\d+) bytes", "\n".join(lines))
    return {
        "tile": bundle.manifest.model.tile,
        "precision": precision,
        "batches": batches,
        "size": engine.nbytes,
        "memory": int(scratch),
        "seconds": round(time.monotonic() - began, 1),
    }


def table(engines: list[dict[str, Any]]) -> str:
    """Memory and size of engines in MB, in Markdown, with a row for each batch."""
    kinds = sorted({(engine["tile"], engine["precision"]) for engine in engines}, reverse=True)
    cells = {
        (tuple(engine["batches"]), engine["tile"], engine["precision"]): (
            f"{engine['memory'] / 1e6:.0f} / {engine['size'] / 1e6:.0f}"
        )
        for engine in engines
    }
    rows = [
        ["batch", *(f"{precision}, tiles of {tile}" for tile, precision in kinds)],
        ["---"] * (1 + len(kinds)),
    ]
    for batches in dict.fromkeys(batches for batches, *_ in cells):
        name = " to ".join(map(str, (batches[0], *batches[2:])))
        rows.append([name, *(cells[(batches, *kind)] for kind in kinds)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@output_option
def main(bundles: tuple[str, ...], output: Path) -> None:
    """Build engines of bundles with fp32 and fp16 graphs."""
    import tensorrt_rtx as trt

    engines = [
        measure(bundle, precision, batches)
        for bundle in map(open_bundle, bundles)
        for precision in PRECISIONS
        for batches in BATCHES
    ]
    result = {"tensorrt_rtx": trt.__version__, "gpu": "sm86", "engines": engines}
    (output / "engines.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(engines))


if __name__ == "__main__":
    main()
