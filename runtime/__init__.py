"""The SSDiff runtime: bundles, backends, tiling and rasters. It does not need PyTorch.

:func:`ssdiff_trt.runtime.pansharpen.pansharpen` is its main entry point.
"""
