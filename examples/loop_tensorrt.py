"""The sampling loop with TensorRT and pycuda alone, as docs/integration.md describes it.

    ssdiff-trt build generic4 --precision fp16 --batch 2 --engine-file step.plan
    python loop_tensorrt.py step.json tiles.npz image.npy

``tiles.npz`` is as for loop_onnxruntime.py; the engine is beside the contract.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as cuda
import tensorrt


def sample(
    contract: dict[str, Any], engine: bytes, tiles: dict[str, np.ndarray], seed: int = 0
) -> np.ndarray:
    """The images [N, C, tile, tile] of a batch, 0 to 1 of full scale. A GPU has to be current."""
    if contract["version"] != 1:
        raise ValueError(f"contract of version {contract['version']}, expected 1")
    shapes = {tensor["name"]: tuple(tensor["shape"]) for tensor in contract["inputs"]}
    noise = np.random.default_rng(seed).standard_normal(shapes["x_t"], np.float32)
    memory = {"x_t": cuda.to_device(noise), "x_next": cuda.mem_alloc(noise.nbytes)}
    for name in ("pan", "lms", "ms"):
        if tiles[name].shape != shapes[name]:
            raise ValueError(f"{name} is {tiles[name].shape}, expected {shapes[name]}")
        memory[name] = cuda.to_device(np.ascontiguousarray(tiles[name], np.float32))
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    loaded = runtime.deserialize_cuda_engine(engine)
    context, stream = loaded.create_execution_context(), cuda.Stream()
    for step in contract["steps"]:
        memory["t"] = cuda.to_device(np.full(shapes["t"], step["t"], np.float32))
        memory["coefficients"] = cuda.to_device(np.array(step["coefficients"], np.float32))
        for name, address in memory.items():
            context.set_tensor_address(name, int(address))
        if not context.execute_async_v3(stream.handle):
            raise RuntimeError("TensorRT refused a step")
        stream.synchronize()
        memory["x_t"], memory["x_next"] = memory["x_next"], memory["x_t"]
    image = np.empty_like(noise)
    cuda.memcpy_dtoh(image, memory["x_t"])
    return image


if __name__ == "__main__":
    import pycuda.autoprimaryctx  # noqa: F401  makes the first GPU current

    file, tiles, output = sys.argv[1:]
    described = json.loads(Path(file).read_text())
    plan = Path(file).with_name(described["engine"]["file"]).read_bytes()
    with np.load(tiles) as arrays:
        np.save(output, sample(described, plan, dict(arrays)))
