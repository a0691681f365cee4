"""Diffusion pansharpening: SSDiff from weights to GeoTIFF."""
