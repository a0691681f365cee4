"""Export of SSDiff weights as bundles: ONNX graphs in several precisions, and their checks."""
