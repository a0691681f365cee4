"""What SSDiff is held against: its PyTorch reference, the metrics, the classical methods."""
