"""The sampling loop with ONNX Runtime alone, as docs/integration.md describes it.

    ssdiff-trt contract generic4 --batch 2 -o step.json
    python loop_onnxruntime.py step.json path/to/generic4.ssdiff tiles.npz image.npy

``tiles.npz`` has ``pan`` [N, 1, tile, tile], ``lms`` [N, C, tile, tile] and ``ms``
[N, C, tile / 4, tile / 4], float32, divided by full scale; N is the batch of the contract.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def sample(
    contract: dict[str, Any], bundle: Path, tiles: dict[str, np.ndarray], seed: int = 0
) -> np.ndarray:
    """The images [N, C, tile, tile] of a batch, 0 to 1 of full scale."""
    if contract["version"] != 1:
        raise ValueError(f"contract of version {contract['version']}, expected 1")
    session = onnxruntime.InferenceSession(bundle / contract["graph"])
    shapes = {tensor["name"]: tuple(tensor["shape"]) for tensor in contract["inputs"]}
    inputs = {name: np.ascontiguousarray(tiles[name], np.float32) for name in ("pan", "lms", "ms")}
    for name, array in inputs.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{name} is {array.shape}, expected {shapes[name]}")
    state = np.random.default_rng(seed).standard_normal(shapes["x_t"], np.float32)
    for step in contract["steps"]:
        inputs["x_t"] = state
        inputs["t"] = np.full(shapes["t"], step["t"], np.float32)
        inputs["coefficients"] = np.array(step["coefficients"], np.float32)
        (state,) = session.run(["x_next"], inputs)
    return state


if __name__ == "__main__":
    contract, bundle, tiles, output = sys.argv[1:]
    described = json.loads(Path(contract).read_text())
    with np.load(tiles) as arrays:
        np.save(output, sample(described, Path(bundle), dict(arrays)))
