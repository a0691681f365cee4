"""The SSDiff runtime: bundles, backends, tiling and rasters. It does not need PyTorch.

:mod:`ssdiff_trt.runtime.pansharpen` is the run, :mod:`ssdiff_trt.runtime.pansharpener` the class
around it that users call.
"""
