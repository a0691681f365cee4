"""The PyTorch reference: the SSDiff network, its checkpoints, and both of its samplers."""
