"""Running SSDiff: bundles, backends, tiles, rasters. Needs no PyTorch.

:func:`runtime.pansharpen.pansharpen` is the whole of it as one function.
"""
