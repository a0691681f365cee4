"""Classical pansharpening methods, on arrays and on rasters."""

NAMES = (
    *("EXP", "Brovey", "BT-H", "GS", "GSA"),
    *("MTF-GLP", "MTF-GLP-FS", "MTF-GLP-HPM", "MTF-GLP-HPM-R", "BDSD-PC"),
)
"""Names of all methods, as in the literature; EXP is interpolation."""
