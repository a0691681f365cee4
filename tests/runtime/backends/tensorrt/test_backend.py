"""The TensorRT backend on a fake GPU."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.backends.tensorrt.cuda import CudaError, OutOfMemoryError
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import make_schedule, sample
from tests.support.engines import BANDS, TILE, engine_tiles, residual, step
from tests.support.fake_gpu import DataType, FakeCuda
from tests.support.progress import RecordingProgress


def expected(tiles, schedule):
    """Images of the sampling loop in numpy."""

    def denoise(x, t):
        times = np.full(len(x), t, np.float32)
        return residual(x, tiles.pan, tiles.lms, tiles.ms, times)

    return sample(denoise, tiles.lms, tiles.noise, schedule)


@pytest.mark.parametrize("sampler", ["consistent", "released"])
@pytest.mark.parametrize("timesteps", [(999,), (999, 20), (900, 500, 100, 0)])
def test_the_loop_on_the_gpu_agrees_with_the_loop_in_numpy(make_backend, sampler, timesteps):
    schedule = make_schedule(timesteps, sampler)
    backend, _ = make_backend()
    batches = [engine_tiles(count, seed) for seed, count in enumerate((4, 1, 3, 4, 2))]
    results = list(backend.sample(iter(batches), schedule))
    assert [len(images) for images in results] == [4, 1, 3, 4, 2]
    for images, tiles in zip(results, batches, strict=True):
        np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)


def test_graph_and_plain_loop_give_the_same_bytes(make_backend):
    schedule, batches = make_schedule((999, 400, 20)), [engine_tiles(4, 1), engine_tiles(3, 2)]
    by_graph, plain = (make_backend(graphs=graphs) for graphs in (True, False))
    images = [list(backend.sample(batches, schedule)) for backend, _ in (by_graph, plain)]
    for one, other in zip(*images, strict=True):
        np.testing.assert_array_equal(one, other)
    # All steps of a batch are one launch; the plain loop enqueues every step.
    assert by_graph[1].calls.count("launch") == 2
    assert plain[1].calls.count("launch") == 0
    assert plain[1].calls.count("enqueue") == 2 * 3


def test_batches_larger_than_that_of_the_engine_are_split_and_joined(make_backend):
    schedule, tiles = make_schedule((999, 20)), engine_tiles(11, 3)
    backend, _ = make_backend(batch=4)
    (images,) = backend.sample([tiles], schedule)
    np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)


def test_a_tile_does_not_depend_on_its_batch(make_backend):
    schedule, tiles = make_schedule((999, 20)), engine_tiles(7, 4)
    backend, _ = make_backend(batch=4)
    (together,) = backend.sample([tiles], schedule)
    alone = list(backend.sample([tiles.part(slice(i, i + 1)) for i in range(7)], schedule))
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_the_next_batch_is_submitted_before_images_are_waited_for(make_backend):
    backend, cuda = make_backend(batch=4)
    taken = []

    def batches():
        for seed in range(4):
            taken.append(seed)
            yield engine_tiles(4, seed)

    images = backend.sample(batches(), make_schedule((999,)))
    next(images)
    assert taken == [0, 1, 2]  # two are in flight, and a third has been read
    assert sum(1 for call in cuda.calls if call == "launch") == 2
    assert len(list(images)) == 3


def test_a_new_schedule_is_loaded_and_captured(make_backend):
    backend, cuda = make_backend()
    tiles = engine_tiles(4, 5)
    for timesteps in ((999,), (900, 300), (999,)):
        schedule = make_schedule(timesteps)
        (images,) = backend.sample([tiles], schedule)
        np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)
    assert len(cuda.graphs) == 3 * 2


def test_denoise_gives_the_clamped_residual(make_backend):
    backend, _ = make_backend()
    tiles, x = engine_tiles(3, 6), engine_tiles(3, 7).noise
    clamped = backend.denoise(tiles, x, 250.0)
    times = np.full(3, 250, np.float32)
    image = (residual(x, tiles.pan, tiles.lms, tiles.ms, times) + tiles.lms).clip(0, 1)
    np.testing.assert_allclose(clamped, image - tiles.lms, rtol=0, atol=2e-6)


def test_a_loop_that_cannot_be_captured_runs_step_by_step_with_a_warning(make_backend):
    progress = RecordingProgress()
    backend, cuda = make_backend(captures=False, progress=progress)
    schedule, tiles = make_schedule((999, 20)), engine_tiles(4, 8)
    (images,) = backend.sample([tiles], schedule)
    np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)
    assert progress.warnings == [
        "No CUDA graph could be captured (capture is not permitted); running step by step"
    ]
    assert "launch" not in cuda.calls
    assert "step by step" in backend.describe()


@pytest.mark.parametrize("refused", [1, 2])
def test_an_enqueue_that_is_refused_stops_the_run(make_backend, refused):
    backend, _ = make_backend(refuse_at=refused)
    with pytest.raises(CudaError, match=rf"fake_tensorrt .* refused step {refused}"):
        list(backend.sample([engine_tiles(4)], make_schedule((999, 20))))


def test_a_backend_that_does_not_fit_leaves_nothing_on_the_gpu(make_backend):
    tile_bytes = 4 * TILE * TILE * (3 * BANDS + 1) + 4 * BANDS * (TILE // 4) ** 2
    sizes = {"batch": 8, "scratch": 1000}
    needed = 8 * (2 * tile_bytes + 1000)  # two slots
    _, cuda = make_backend(memory_size=needed, **sizes)
    assert sum(map(len, cuda.blocks.values())) == needed
    cuda = FakeCuda(memory_size=needed - 1)
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        make_backend(cuda=cuda, **sizes)
    assert not cuda.blocks


def test_an_engine_that_does_not_match_the_bundle_is_refused(make_backend):
    with pytest.raises(SSDiffError, match=r"has pan in HALF, expected FLOAT"):
        make_backend(dtypes={"pan": DataType.HALF})
    with pytest.raises(
        SSDiffError, match=r"x_t of shape \(4, 4, 32, 32\), expected \(8, 4, 32, 32"
    ):
        make_backend(batch=8, built=4)


def test_a_nan_is_preserved(make_backend):
    def broken(x_t, pan, lms, ms, t, coefficients):
        result = step(x_t, pan, lms, ms, t, coefficients)
        result[1, 2, 3, 4] = np.nan
        return result

    backend, _ = make_backend(network=broken)
    (images,) = backend.sample([engine_tiles(4)], make_schedule((999,)))
    assert np.isnan(images).sum() == 1


def test_a_loop_takes_the_time_of_its_steps(make_backend):
    backend, _ = make_backend()
    for timesteps in ((999,), (999, 400, 20)):
        times = backend.milliseconds(engine_tiles(4, 1), make_schedule(timesteps), 3)
        assert times == [len(timesteps)] * 3
