"""INT8: calibration on real denoising trajectories, Q/DQ graphs, and what each layer costs."""
