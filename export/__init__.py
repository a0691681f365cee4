"""From SSDiff weights to a bundle: ONNX graphs, and the proof that they compute the same."""
