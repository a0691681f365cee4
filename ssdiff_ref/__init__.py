"""Reference SSDiff network in PyTorch, quality metrics, classical methods and training."""
