"""TensorRT and TensorRT-RTX: the backend, engine builds, the engine cache, and CUDA calls."""
