"""SSNet in PyTorch: modules, checkpoints and an inference backend."""
