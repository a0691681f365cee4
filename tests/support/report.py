"""Reading the page of a report."""

from __future__ import annotations

import io
import re
from base64 import b64decode

import numpy as np
from PIL import Image

PRODUCTS = ("PAN", "MS, interpolated", "MTF-GLP-FS", "Result")
"""Of a window; the whole scene has no classical fusion."""


def image_of(page, name):
    """The image of a class of the page, such as ``v0p1-2``: view 0, product 1, band 2."""
    (content,) = re.findall(rf'^\.{name} {{ .*base64,([^"]+)"', page, re.MULTILINE)
    return Image.open(io.BytesIO(b64decode(content)))


def bands_of(page, name, bands=4, view=0):
    """The bands of a product of a window, ``[C, h, w]``."""
    place = f"v{view}p{PRODUCTS.index(name)}"
    return np.stack([np.asarray(image_of(page, f"{place}-{n}"), float) for n in range(bands)])
