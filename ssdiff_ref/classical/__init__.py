"""Classical pansharpening methods, on arrays and on rasters."""
