"""Rasters: the pair of PAN and MS as one scene, the output, and what is known of their values."""
