"""What a run would cost, measured on a few of its tiles, without doing it."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass
from typing import Any

from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.memory import resident_memory
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.tiles.batch import Tiles
from ssdiff_trt.runtime.tiles.inputs import prepare
from ssdiff_trt.runtime.tiles.tiling import Window

_SECONDS = 1.0
"""Least time that is measured."""
_BATCHES = 3
"""Least number of batches that are measured."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a run."""

    tiles: int
    """Tiles, those without data included, and those at borders of blocks for each block."""
    blocks: int
    """Parts that are finished one by one."""
    finished_blocks: int
    """Those of them that an unfinished run has left."""
    seconds_per_tile: float | None
    """Time of all steps of a tile in this process, its preparation included; None where no tile
    with data was found."""
    seconds: float | None
    """Time of what is left, if all of its tiles have data."""
    memory: int
    """Bytes of this process with the network, and of what the run adds, at most."""
    disk: int
    """Bytes of the result, if it cannot be compressed."""
    disk_until_complete: int
    """Bytes of other files beside it until it is complete."""

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)


def estimate(plan: Plan, backend: Backend, batch: int | None = None) -> Estimate:
    """What a plan costs on a backend. Reads and samples a few tiles, and writes nothing.

    Args:
        plan: a plan whose pair is open.
        backend: runs the network.
        batch: tiles at a time; the backend's by default.
    """
    batch = batch or backend.batch
    began = time.monotonic()
    tiles = _some_tiles(plan, batch)
    reading = time.monotonic() - began
    seconds = None
    if tiles is not None:
        sampling = len(plan.seeds) * _time_of_a_tile(plan, backend, tiles, batch)
        seconds = sampling + reading / len(tiles.pan)
    disk, count, blocks = plan.disk, plan.tiles, len(plan.blocks)
    finished = min(plan.sink.finished_blocks(plan.work(backend.describe())), blocks)
    return Estimate(
        tiles=count,
        blocks=blocks,
        finished_blocks=finished,
        seconds_per_tile=seconds,
        seconds=None if seconds is None else seconds * count * (1 - finished / blocks),
        memory=int(resident_memory() + plan.memory),
        disk=disk.result,
        disk_until_complete=disk.until_complete,
    )


def _some_tiles(plan: Plan, batch: int) -> Tiles | None:
    """Tiles with data from where the first are found: the middle block, then the others."""
    scales = plan.assumptions.pan_scale.value, plan.assumptions.ms_scale.value
    step = plan.rows.tile - plan.rows.overlap
    side = step * max(2, round(batch**0.5))
    middle = len(plan.blocks) // 2
    for block in (*plan.blocks[middle:], *plan.blocks[:middle]):
        windows = list(block.windows(side))
        for window in _spread(windows, 9):
            tiles = prepare(plan.source, window, plan.seeds[0], *scales).tiles
            if len(tiles.pan):
                return tiles
    return None


def _spread(windows: list[Window], count: int) -> list[Window]:
    """Up to so many windows, the middle one first."""
    middle = len(windows) // 2
    turned = windows[middle:] + windows[:middle]
    return turned[:: max(1, len(windows) // count)]


def _time_of_a_tile(plan: Plan, backend: Backend, tiles: Tiles, batch: int) -> float:
    """Seconds of all steps, from whole batches, once the backend has warmed up."""
    count = len(tiles.pan)
    several = Tiles(*(array.repeat(-(-batch // count), axis=0)[:batch] for array in tiles))
    next(iter(backend.sample([several], plan.schedule)))
    began = last = time.monotonic()
    for number, _ in enumerate(backend.sample(itertools.repeat(several), plan.schedule), start=1):
        last = time.monotonic()
        if number >= _BATCHES and last - began >= _SECONDS:
            break
    return (last - began) / (number * batch)
