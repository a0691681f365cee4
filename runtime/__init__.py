"""Running SSDiff: bundles, backends, tiles, rasters. Needs no PyTorch.

:func:`ssdiff_trt.runtime.pansharpen.pansharpen` is the whole of it as one function.
"""
