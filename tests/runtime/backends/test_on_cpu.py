"""How backends on the CPU share tiles among threads, with an engine that is a function."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest

from ssdiff_trt.runtime.backends.on_cpu import OnCpu
from ssdiff_trt.runtime.parity.ladder import random_tiles
from ssdiff_trt.runtime.schedule import make_schedule

SCHEDULE = make_schedule((999, 400))


class Function(OnCpu):
    """Notes how many tiles each evaluation has."""

    def __init__(self, part, threads, evaluate=lambda inputs: 0.1 * inputs["x_t"]):
        super().__init__("fp32", Path("graph.onnx"), lambda *_: nullcontext(), part, threads)
        self._evaluate, self.sizes = evaluate, []

    def evaluate(self, inputs):
        self.sizes.append(len(inputs["x_t"]))
        return self._evaluate(inputs)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (2, [1, 1]), (3, [1, 2]), (8, [4, 4]), (9, [1, 4, 4])]
)
def test_each_thread_has_its_share_and_no_more_than_fits(count, sizes):
    tiles, backend = random_tiles(4, 16, count=count), Function(part=4, threads=2)
    residual = backend.denoise(tiles, tiles.noise, 5.0)
    np.testing.assert_array_equal(residual, 0.1 * tiles.noise)
    assert (backend.batch, sorted(backend.sizes)) == (8, sizes)
    backend.close()


def test_batches_keep_their_order_and_their_images():
    batches = [random_tiles(4, 16, count=count) for count in (5, 1, 8, 3)]
    several, alone = Function(part=2, threads=3), Function(part=100, threads=1)
    images = list(several.sample(iter(batches), SCHEDULE))
    assert [len(batch) for batch in images] == [5, 1, 8, 3]
    for tiles, found in zip(batches, images, strict=True):
        (expected,) = alone.sample([tiles], SCHEDULE)
        np.testing.assert_array_equal(found, expected)
    assert list(several.sample([], SCHEDULE)) == []


def test_the_next_batch_is_computed_while_the_images_of_one_are_used():
    begun = threading.Semaphore(0)

    def evaluate(inputs):
        begun.release()
        return inputs["x_t"]

    backend = Function(1, 1, evaluate)
    tiles = random_tiles(4, 16, count=1)
    images = backend.sample([tiles] * 3, make_schedule((999,)))
    next(images)
    for _ in range(2):  # nobody has asked for the second
        assert begun.acquire(timeout=20)
    assert not begun.acquire(timeout=0.1)  # nor is the third taken before that
    assert len(list(images)) == 2


def test_a_fault_on_a_thread_is_raised_and_ends_the_loop():
    def evaluate(inputs):
        raise ValueError("no memory")

    others = set(threading.enumerate())
    backend = Function(1, 2, evaluate)
    tiles = random_tiles(4, 16, count=4)
    with pytest.raises(ValueError, match="no memory"):
        next(backend.sample([tiles], SCHEDULE))
    with pytest.raises(ValueError, match="no memory"):
        backend.denoise(tiles, tiles.noise, 5.0)
    assert set(threading.enumerate()) - others
    backend.close()
    backend.close()
    assert set(threading.enumerate()) - others == set()


def test_closing_does_not_wait_for_tiles_that_nobody_began():
    go, running = threading.Event(), threading.Event()

    def evaluate(inputs):
        running.set()
        go.wait(20)
        return inputs["x_t"]

    backend = Function(1, 1, evaluate)
    tiles = random_tiles(4, 16, count=6)
    loop = threading.Thread(target=lambda: _tried(backend, tiles))
    loop.start()
    assert running.wait(20)
    closing = threading.Thread(target=backend.close)
    closing.start()
    go.set()
    for thread in (closing, loop):
        thread.join(20)
        assert not thread.is_alive()
    assert len(backend.sizes) < 6


def _tried(backend, tiles):
    with suppress(CancelledError, RuntimeError):  # what was submitted, and what was to be
        list(backend.sample([tiles], make_schedule((999,))))
