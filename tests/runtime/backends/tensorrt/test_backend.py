"""The TensorRT backend with a fake engine, through both CUDA packages on the stand-in driver."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ssdiff_trt.runtime.backends.tensorrt.cuda import CudaError, OutOfMemoryError
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import make_schedule, sample
from tests.support.engines import BANDS, TILE, engine_tiles, residual, step
from tests.support.fake_gpu import DataType
from tests.support.progress import RecordingProgress

ALL_BUT_GRAPHS = {
    "device_blocks": 2 * 5 + 1,
    "pinned_blocks": 2 * 5,
    "streams": 3,
    "events": 2 * 3,
}
"""What a backend holds before it samples; one block is the engine's."""


def in_thread(work):
    """Do work in a thread of its own, which has no current context."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


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
    backend = make_backend()
    batches = [engine_tiles(count, seed) for seed, count in enumerate((4, 1, 3, 4, 2))]
    results = list(backend.sample(iter(batches), schedule))
    assert [len(images) for images in results] == [4, 1, 3, 4, 2]
    for images, tiles in zip(results, batches, strict=True):
        np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)


def test_graph_and_plain_loop_give_the_same_bytes(make_backend, driver):
    schedule, batches = make_schedule((999, 400, 20)), [engine_tiles(4, 1), engine_tiles(3, 2)]
    by_graph, plain = (make_backend(graphs=graphs) for graphs in (True, False))
    images = [list(by_graph.sample(batches, schedule))]
    assert driver.counts.launches == 2  # all steps of a batch are one launch
    before = driver.counts.enqueued
    images.append(list(plain.sample(batches, schedule)))
    assert driver.counts.launches == 2
    assert driver.counts.enqueued - before == 2 * 3  # the plain loop enqueues every step
    for one, other in zip(*images, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_larger_than_that_of_the_engine_are_split_and_joined(make_backend):
    schedule, tiles = make_schedule((999, 20)), engine_tiles(11, 3)
    backend = make_backend(batch=4)
    (images,) = backend.sample([tiles], schedule)
    np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)


def test_a_tile_does_not_depend_on_its_batch(make_backend):
    schedule, tiles = make_schedule((999, 20)), engine_tiles(7, 4)
    backend = make_backend(batch=4)
    (together,) = backend.sample([tiles], schedule)
    alone = list(backend.sample([tiles.part(slice(i, i + 1)) for i in range(7)], schedule))
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_the_next_batch_is_submitted_before_images_are_waited_for(make_backend, driver):
    backend = make_backend(batch=4)
    taken = []

    def batches():
        for seed in range(4):
            taken.append(seed)
            yield engine_tiles(4, seed)

    images = backend.sample(batches(), make_schedule((999,)))
    next(images)
    assert taken == [0, 1, 2]  # two are in flight, and a third has been read
    assert driver.counts.launches == 2
    assert len(list(images)) == 3


def test_a_new_schedule_is_loaded_and_captured(make_backend, driver):
    backend = make_backend()
    tiles = engine_tiles(4, 5)
    for timesteps in ((999,), (900, 300), (999,)):
        schedule = make_schedule(timesteps)
        (images,) = backend.sample([tiles], schedule)
        np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)
        assert driver.counts.executables == 2  # those of the last schedule are freed


def test_denoise_gives_the_clamped_residual(make_backend):
    backend = make_backend()
    tiles, x = engine_tiles(3, 6), engine_tiles(3, 7).noise
    clamped = backend.denoise(tiles, x, 250.0)
    times = np.full(3, 250, np.float32)
    image = (residual(x, tiles.pan, tiles.lms, tiles.ms, times) + tiles.lms).clip(0, 1)
    np.testing.assert_allclose(clamped, image - tiles.lms, rtol=0, atol=2e-6)


def test_a_loop_that_cannot_be_captured_runs_step_by_step_with_a_warning(make_backend, driver):
    progress = RecordingProgress()
    driver.reset(captures=False)
    backend = make_backend(progress=progress)
    schedule, tiles = make_schedule((999, 20)), engine_tiles(4, 8)
    (images,) = backend.sample([tiles], schedule)
    np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)
    assert progress.warnings == [
        "No CUDA graph could be captured (CUDA refused cuStreamEndCapture (error 901); check the "
        "driver (nvidia-smi).); running step by step"
    ]
    assert driver.counts.launches == 0
    assert "step by step" in backend.describe()


@pytest.mark.parametrize("refused", [1, 2])
def test_an_enqueue_that_is_refused_stops_the_run(make_backend, refused):
    backend = make_backend(refuse_at=refused)
    with pytest.raises(CudaError, match=rf"fake_tensorrt .* refused step {refused}"):
        list(backend.sample([engine_tiles(4)], make_schedule((999, 20))))


@pytest.mark.parametrize("short", ["memory", "pinned"])
def test_a_backend_that_does_not_fit_leaves_nothing_on_the_gpu(make_backend, driver, short):
    tile_bytes = 4 * TILE * TILE * (3 * BANDS + 1) + 4 * BANDS * (TILE // 4) ** 2
    needed = {"memory": 8 * (2 * tile_bytes + 1000) + 256, "pinned": 8 * 2 * tile_bytes}
    driver.reset(**needed)  # two slots, and on the device the engine
    make_backend(batch=8, scratch=1000).close()
    driver.reset(**needed | {short: needed[short] - 1})
    with pytest.raises(OutOfMemoryError, match="lower `batch`"):
        make_backend(batch=8, scratch=1000)
    assert driver.counts.held() == {}


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

    backend = make_backend(network=broken)
    (images,) = backend.sample([engine_tiles(4)], make_schedule((999,)))
    assert np.isnan(images).sum() == 1


def test_a_loop_takes_the_time_of_its_steps(make_backend):
    backend = make_backend()
    for timesteps in ((999,), (999, 400, 20)):
        times = backend.milliseconds(engine_tiles(4, 1), make_schedule(timesteps), 3)
        assert times == [len(timesteps)] * 3


def test_closing_frees_everything_and_is_repeatable(make_backend, driver):
    tiles = engine_tiles(4)
    with make_backend() as backend:
        assert driver.counts.held() == ALL_BUT_GRAPHS
        backend.milliseconds(tiles, make_schedule((999, 20)), 2)
        loaded = {"device_blocks": 2 * 5 + 1 + 2, "executables": 2}  # times and coefficients
        assert driver.counts.held() == ALL_BUT_GRAPHS | loaded
    assert driver.counts.held() == {}
    backend.close()
    with pytest.raises(SSDiffError, match=r"fake_tensorrt .* is closed; open it again"):
        backend.denoise(tiles, tiles.noise, 999)


@pytest.mark.parametrize("fault", [{"dtypes": {"pan": DataType.HALF}}, {"batch": 8, "built": 4}])
def test_a_backend_that_cannot_be_opened_leaves_nothing(make_backend, driver, fault):
    with pytest.raises(SSDiffError):
        make_backend(**fault)
    assert driver.counts.held() == {}


def test_an_engine_that_does_not_fit_is_refused(make_backend, driver):
    driver.reset(memory=100)
    with pytest.raises(SSDiffError, match="too little memory for the engine; free some, or lower"):
        make_backend()
    assert driver.counts.held() == {}


def test_images_that_nobody_takes_leave_no_slot_in_flight(make_backend, driver):
    backend, schedule, tiles = make_backend(), make_schedule((999, 20)), engine_tiles(4, 1)
    images = backend.sample([engine_tiles(4, seed) for seed in range(4)], schedule)
    next(images)
    assert driver.pending()
    del images
    assert not driver.pending()
    (found,) = backend.sample([tiles], schedule)
    np.testing.assert_allclose(found, expected(tiles, schedule), rtol=0, atol=2e-6)


def test_a_sampling_that_another_one_overtook_ends_with_an_error(make_backend):
    backend, schedule = make_backend(), make_schedule((999, 20))
    batches = [engine_tiles(4, seed) for seed in range(4)]
    overtaken = backend.sample(batches, schedule)
    np.testing.assert_allclose(next(overtaken), expected(batches[0], schedule), rtol=0, atol=2e-6)
    found = list(backend.sample(batches, schedule))
    for images, tiles in zip(found, batches, strict=True):
        np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)
    with pytest.raises(SSDiffError, match="began another sampling before this one ended"):
        next(overtaken)


def test_any_thread_may_sample_and_close(make_backend, driver):
    backend, schedule = make_backend(), make_schedule((999, 20))
    batches = [engine_tiles(4, seed) for seed in range(4)]
    images = backend.sample(batches, schedule)
    found = [next(images)]
    in_thread(lambda: found.append(next(images)))
    found += images
    in_thread(lambda: found.extend(backend.sample(batches[:1], make_schedule((999,)))))
    in_thread(backend.close)
    for one, tiles in zip(found[:4], batches, strict=True):
        np.testing.assert_allclose(one, expected(tiles, schedule), rtol=0, atol=2e-6)
    last = expected(batches[0], make_schedule((999,)))
    np.testing.assert_allclose(found[4], last, rtol=0, atol=2e-6)
    assert driver.counts.held() == {}


def test_both_packages_give_the_same_bytes(make_with, driver):
    schedule, batches = make_schedule((999, 400, 20)), [engine_tiles(4, 1), engine_tiles(3, 2)]
    images = []
    for package in ("pycuda", "cuda-python"):
        with make_with(package)() as backend:
            images.append(list(backend.sample(batches, schedule)))
    for one, other in zip(*images, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("graphs", [True, False])
def test_a_step_that_was_refused_leaves_the_backend_usable(make_backend, driver, graphs):
    backend, tiles = make_backend(refuse_at=3, graphs=graphs), engine_tiles(4, 1)
    backend.denoise(tiles, tiles.noise, 999)
    schedule = make_schedule((999, 20))
    with pytest.raises(CudaError, match="refused step 2"):
        list(backend.sample([tiles], schedule))
    assert not driver.pending()
    (images,) = backend.sample([tiles], schedule)
    np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)


def test_what_a_batch_does_not_fill_is_finite(make_backend):
    finite = []

    def network(**inputs):
        finite.append(all(np.isfinite(array).all() for array in inputs.values()))
        return step(**inputs)

    list(make_backend(network=network).sample([engine_tiles(1)], make_schedule((999,))))
    assert finite[-1]  # earlier calls are for the capture, on memory that holds anything


def test_a_schedule_that_failed_to_load_does_not_replay_the_one_before(make_backend):
    backend, batches = make_backend(refuse_at=7), [engine_tiles(4, 1), engine_tiles(4, 2)]
    list(backend.sample(batches, make_schedule((999,))))  # a call and a capture for each slot
    schedule = make_schedule((500,))
    with pytest.raises(CudaError, match="refused step 1"):
        list(backend.sample(batches, schedule))
    for images, tiles in zip(backend.sample(batches, schedule), batches, strict=True):
        np.testing.assert_allclose(images, expected(tiles, schedule), rtol=0, atol=2e-6)
