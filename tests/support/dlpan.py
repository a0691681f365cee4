"""Scenes with golden outputs and scores computed by the DLPan-Toolbox itself."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.simulation import degrade
from ssdiff_trt.runtime.sensors import SENSORS

GOLDEN = Path(__file__).parents[1] / "golden"
SCENES = ("wv3", "ge1")


def golden_scores(name):
    return json.loads((GOLDEN / f"dlpan_{name}.json").read_text())


@cache
def golden_arrays():
    """The WorldView-3 scene and the toolbox's intermediate arrays, bands first."""
    with np.load(GOLDEN / "dlpan_wv3.npz") as arrays:
        return {k: a.transpose(2, 0, 1) if a.ndim == 3 else a for k, a in arrays.items()}


def _pair(name):
    if name == "wv3":
        return golden_arrays()["I_MS"], golden_arrays()["I_PAN"]
    if "SSDIFF_DATA" not in os.environ:
        pytest.skip("the GeoEye-1 scene may not be redistributed; set SSDIFF_DATA to its folder")
    path = Path(os.environ["SSDIFF_DATA"]) / "geoeye1" / "imgGE1.mat"
    if not path.exists():
        pytest.skip(f"SSDIFF_DATA has no {path.relative_to(os.environ['SSDIFF_DATA'])}")
    arrays = loadmat(path)
    return arrays["I_MS"].transpose(2, 0, 1), arrays["I_PAN"]


@cache
def full_resolution(name):
    ms, pan = _pair(name)
    return Pair.of(pan, ms, SENSORS[name])


@cache
def reduced_resolution(name):
    """The degraded scene; its ground truth is ``full_resolution(name).ms``."""
    scene = full_resolution(name)
    ms_lr, pan_lr = degrade(scene.ms, scene.pan, scene.sensor)
    return Pair.of(pan_lr, ms_lr, scene.sensor)
