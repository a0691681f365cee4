"""Diffusion pansharpening: SSDiff from weights to GeoTIFF.

::

    from ssdiff_trt import pansharpen

    result = pansharpen("pan.tif", "ms.tif", "sharp.tif")
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssdiff_trt.runtime.bundle.store import Bundle, open_bundle
    from ssdiff_trt.runtime.errors import (
        BackendError,
        BundleError,
        InputError,
        OutputError,
        ParityError,
        SSDiffError,
        SSDiffWarning,
    )
    from ssdiff_trt.runtime.pansharpener import Pansharpener, pansharpen
    from ssdiff_trt.runtime.plan.plan import Plan
    from ssdiff_trt.runtime.plan.result import Result
    from ssdiff_trt.runtime.progress import Progress

    __version__: str

# ONNX Runtime's wheels for Linux look up a server, and keep a device id and events in the user's
# home. They read this when they are imported; a user who wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "bundle.store",
    "open_bundle": "bundle.store",
    "BackendError": "errors",
    "BundleError": "errors",
    "InputError": "errors",
    "OutputError": "errors",
    "ParityError": "errors",
    "SSDiffError": "errors",
    "SSDiffWarning": "errors",
    "Pansharpener": "pansharpener",
    "pansharpen": "pansharpener",
    "Progress": "progress",
    "Plan": "plan.plan",
    "Result": "plan.result",
}
"""Modules of the runtime that define the public names; imported when one is first used."""
__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "InputError",
    "OutputError",
    "Pansharpener",
    "ParityError",
    "Plan",
    "Progress",
    "Result",
    "SSDiffError",
    "SSDiffWarning",
    "__version__",
    "open_bundle",
    "pansharpen",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("ssdiff-trt")
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ssdiff_trt.runtime.{home}"), name)


def __dir__() -> list[str]:
    return __all__
