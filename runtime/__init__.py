"""Running SSDiff: bundles, backends, tiles, rasters. Needs no PyTorch.

:mod:`ssdiff_trt.runtime.pansharpen` is the run, :mod:`ssdiff_trt.runtime.pansharpener` the class
around it that users call.
"""
