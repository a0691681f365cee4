"""What TensorRT-RTX writes about an engine while it builds it, which it does without a GPU."""

from __future__ import annotations

import re
from typing import NamedTuple
from unittest import mock

from ssdiff_trt.runtime.backends.tensorrt import engine
from ssdiff_trt.runtime.progress import Progress

_LAYER = re.compile(r"Name: (.*?), LayerType: (\w*), Inputs: .* Outputs: \[(.*?)\], TacticName: ")
_TENSOR = re.compile(r"Name: ([^,]*), .*?Datatype: (\w+)")
_SCRATCH = re.compile(r"Max Scratch Memory: (\d+) bytes")


class BuildLog(NamedTuple):
    """What the verbose log of a build says of the engine."""

    layers: list[dict]
    """Its layers, with the keys of the engine inspector's JSON."""
    scratch: int
    """Device memory that it computes in, bytes."""


def build_log(plan):
    """Build an engine for a plan and read the log of the build."""
    lines = []

    class Logger(plan.trt.ILogger):
        def log(self, severity, message):
            lines.extend(message.splitlines())

    with mock.patch.object(engine, "_logger", return_value=Logger()):
        plan.build(Progress())
    (scratch,) = (int(found[1]) for line in lines if (found := _SCRATCH.match(line)))
    layers = [
        {
            "Name": found[1],
            "LayerType": found[2],
            "Outputs": [
                {"Name": name, "Datatype": datatype} for name, datatype in _TENSOR.findall(found[3])
            ],
        }
        for line in lines
        if (found := _LAYER.match(line))
    ]
    return BuildLog(layers, scratch)
