"""Scenes to adapt to."""

from __future__ import annotations

import numpy as np

from ssdiff_ref.quality.filters import bicubic_quarter
from ssdiff_ref.training.procedural import dead_leaves
from ssdiff_ref.training.scene_pairs import AdaptationScene, Split, prepare_scene, split_blocks
from ssdiff_trt.runtime.sensors import SENSORS

SENSOR = SENSORS["generic"]


def scene_of(size=128, hole=None, position=(1.5, 1.5), seed=1) -> AdaptationScene:
    fine = dead_leaves(seed, 4, 4 * size).clip(0, 5) / 10
    valid = np.ones((size, size), bool)
    if hole:
        valid[hole] = False
    return prepare_scene(fine.mean(axis=0), bicubic_quarter(fine), valid, SENSOR, position)


def split_of(scene: AdaptationScene) -> Split:
    return split_blocks([scene.valid])
