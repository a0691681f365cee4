"""Rasters: the PAN and MS pair as a scene, the output, radiometry and registration."""
