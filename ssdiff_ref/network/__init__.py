"""SSNet in PyTorch: its parts, its checkpoints, and the network as a backend."""
