"""INT8: calibration samples, quantisation ranges, layer sensitivity, and Q/DQ graphs."""
