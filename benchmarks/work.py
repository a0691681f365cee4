"""What a step of a tile takes of a processor, and what that bounds elsewhere: ``work.json``.

    python -m benchmarks.work [--bundle generic4] [-o docs]

Counted are operations of matrix products and convolutions (the filter of FMIM is an FFT here),
exponentials of softmax, and the values that layers give, as PyTorch computes a tile. The table
divides them by the vendors' peak rates of some GPUs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.output import output_option
from benchmarks.weights import row
from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.export.parity import torch_denoiser
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.parity.ladder import real_tiles

TILE, NEW = 32, 24
"""Pixels of a tile along an axis, and those without the overlap."""
BYTES = 2
"""Of a value in FP16."""
EXPONENTIALS = 16
"""Of a multiprocessor in a clock."""
DEVICES = {
    "Jetson Orin Nano Super": (17, 8, 1.02, 102),
    "Jetson AGX Orin 64 GB": (42, 16, 1.3, 205),
    "GeForce RTX 4090": (165, 128, 2.52, 1008),
    "H100 SXM": (989, 132, 1.75, 3350),
}
"""TFLOP/s in FP16 without sparsity, multiprocessors, GHz at boost, GB/s of memory."""


def work(bundle: str) -> dict[str, float]:
    """GFLOP, exponentials and MB of a tile and step."""
    opened = open_bundle(bundle)
    bands = opened.manifest.model.bands
    net = SSNet(bands, fmim="fft", attention="materialised").eval()
    net.load_state_dict(load_checkpoint(opened.path).net.state_dict())
    given: list[int] = []
    for layer in net.modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda _layer, _inputs, result: given.append(result.numel())
            )
    tiles = real_tiles(bands, TILE)
    softmax = torch.ops.aten._softmax
    mapping = {softmax: lambda shape, *_, **__: math.prod(shape)}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        torch_denoiser(net)(tiles, tiles.noise, 999.0)
    exponentials = counter.get_flop_counts()["Global"][softmax]
    return {
        "GFLOP": (counter.get_total_flops() - exponentials) / 1e9,
        "exponentials": exponentials,
        "MB of results, written and read": 2 * BYTES * sum(given) / 1e6,
        "MB of weights": BYTES * sum(weight.numel() for weight in net.parameters()) / 1e6,
    }


def traffic(step: dict[str, float]) -> float:
    """MB of memory traffic at most."""
    return step["MB of results, written and read"] + step["MB of weights"]


def table(step: dict[str, float]) -> str:
    """The bounds as a Markdown table."""
    bounds = "lower bounds of a step: products, exponentials, memory"
    head = ("", "FP16 products", "exponentials", "memory", bounds, "a Mpixel, at best")
    lines = [row(*head), "|---" * len(head) + "|"]
    for name, (products, processors, clock, memory) in DEVICES.items():
        exponentials = EXPONENTIALS * processors * clock / 1000  # 1e12/s
        ms = (
            step["GFLOP"] / products,
            step["exponentials"] / exponentials / 1e9,
            traffic(step) / memory,
        )
        cells = (
            f"{products} TFLOP/s",
            f"{exponentials:.2g}e12/s ({processors} x {clock} GHz)",
            f"{memory} GB/s",
            f"{', '.join(f'{value:#.2g}' for value in ms)} ms",
            f"{max(ms) / 1000 * 1e6 / NEW**2:#.2g} s",
        )
        lines.append(row(name, *cells))
    return "\n".join(lines)


@click.command()
@click.option("--bundle", default="generic4", show_default=True)
@output_option
def main(bundle: str, output: Path) -> None:
    """Count, write work.json and print the table."""
    step = work(bundle)
    (output / "work.json").write_text(json.dumps(step, indent=1) + "\n")
    print(table(step))


if __name__ == "__main__":
    main()
