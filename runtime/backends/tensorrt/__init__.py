"""TensorRT and TensorRT-RTX: engines, their cache, and the CUDA calls around them."""
