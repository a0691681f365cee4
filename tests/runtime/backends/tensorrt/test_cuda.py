"""The two CUDA packages behind the ``Cuda`` protocol, on the stand-in driver."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading

import numpy as np
import pytest

from ssdiff_trt.runtime.backends.tensorrt.cuda import (
    Cuda,
    CudaError,
    Device,
    OutOfMemoryError,
    open_cuda,
)
from ssdiff_trt.runtime.backends.tensorrt.cuda_packages import CudaPython, PyCuda
from ssdiff_trt.runtime.errors import SSDiffError
from tests.support.driver import ROOT, view


@pytest.fixture
def cuda(make_cuda):
    """CUDA on the first GPU, which is current."""
    opened = make_cuda()
    with opened.current():
        yield opened


@pytest.mark.parametrize("kind", [PyCuda, CudaPython])
def test_both_packages_implement_the_protocol(kind):
    for name, declared in inspect.getmembers(Cuda, inspect.isfunction):
        if not name.startswith("_"):
            implemented = inspect.signature(getattr(kind, name))
            assert implemented.parameters == inspect.signature(declared).parameters, name


def test_each_gpu_is_described_and_has_its_own_memory(make_cuda, driver):
    driver.reset(memory=8 << 30)
    first, second = make_cuda(), make_cuda(1)
    assert first.device == Device("Stand-in GPU 0", (8, 6), 13000)
    assert second.device == Device("Stand-in GPU 1", (8, 7), 13000)
    with second.current():
        second.allocate(3 << 20)
        assert second.memory() == ((8 << 30) - (3 << 20), 8 << 30)
        with first.current():
            assert first.memory() == (8 << 30, 8 << 30)
        assert second.memory()[0] == (8 << 30) - (3 << 20)
    with pytest.raises(SSDiffError, match="There is no GPU 2; this machine has 2, counted from 0"):
        make_cuda(2)


def test_work_is_done_in_the_order_of_streams_and_events(cuda, driver):
    upload, download = cuda.stream(), cuda.stream()
    source, result = cuda.pinned((2, 3)), cuda.pinned((2, 3))
    address, done, copied = cuda.allocate(24), cuda.event(), cuda.event()
    source[:], result[:] = np.arange(6).reshape(2, 3), -1
    cuda.upload(address, source, upload)
    cuda.record(copied, upload)
    cuda.wait(download, copied)
    cuda.download(result, address, download)
    cuda.record(done, download)
    assert (result == -1).all()  # nothing has waited yet
    cuda.synchronize(done)
    np.testing.assert_array_equal(result, [[0, 1, 2], [3, 4, 5]])
    assert driver.counts.pageable_copies == 0


def test_an_event_that_was_never_recorded_is_not_waited_for(cuda):
    cuda.synchronize(cuda.event())


def test_events_measure_the_time_of_the_device(cuda, driver):
    stream, start, stop = cuda.stream(), cuda.event(), cuda.event()
    cuda.record(start, stream)
    for _ in range(3):
        assert driver.enqueue(stream, lambda: None)
    cuda.record(stop, stream)
    cuda.synchronize(stop)
    assert cuda.elapsed(start, stop) == 3


def test_everything_is_counted_until_it_is_released(cuda, driver):
    stream = cuda.stream()
    array = cuda.pinned((3, 5))
    handles = [cuda.allocate(10), array.ctypes.data, cuda.event()]
    handles += [cuda.capture(stream, lambda: None), stream]
    held = {"device_blocks": 1, "pinned_blocks": 1, "streams": 1, "events": 1, "executables": 1}
    assert driver.counts.held() == held
    for handle in handles:
        cuda.release(handle)
    assert driver.counts.held() == {}
    with pytest.raises(KeyError):
        cuda.release(handles[0])


def test_too_little_memory_is_its_own_error_with_the_sizes(cuda, driver):
    driver.reset(memory=100 << 20)
    cuda.allocate(40 << 20)
    with pytest.raises(
        OutOfMemoryError, match=r"cannot allocate 64 MiB \(60 of 100 MiB are free\); free some, or "
    ):
        cuda.allocate(64 << 20)
    cuda.allocate(60 << 20)


def test_a_refused_call_is_one_sentence_with_the_function(cuda):
    array, stream = np.zeros(4, np.float32), cuda.stream()
    with pytest.raises(CudaError, match=r"^CUDA refused cuMemcpyHtoDAsync.*; check the driver"):
        cuda.upload(4096, array, stream)  # not an address of the device
    with pytest.raises(CudaError, match=r"^CUDA refused cuEventElapsedTime.*; check the driver"):
        cuda.elapsed(cuda.event(), cuda.event())
    cuda.release(graph := cuda.capture(stream, lambda: None))
    with pytest.raises(CudaError, match=r"^CUDA refused cuGraphLaunch \(error 400\); check the"):
        cuda.launch(graph, stream)


def test_a_thread_without_the_gpu_is_refused_and_one_with_it_is_not(make_cuda):
    cuda, found = make_cuda(), []

    def attempt():
        try:
            cuda.allocate(16)
        except CudaError as error:
            found.append(str(error))
        with cuda.current():
            found.append(cuda.allocate(16))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    refused, address = found
    assert refused.startswith("CUDA refused cuMem")
    with cuda.current():
        cuda.release(address)


def test_leaving_the_context_gives_the_thread_back_as_it_was(make_cuda):
    cuda, other = make_cuda(), make_cuda(1)
    with other.current():
        other.allocate(16)
        used = other.memory()
        with pytest.raises(OutOfMemoryError), cuda.current():
            cuda.allocate(1 << 41)
        assert other.memory() == used
    with pytest.raises(CudaError):
        other.memory()


def test_a_graph_repeats_what_was_captured_and_capturing_executes_nothing(cuda, driver):
    stream, done = cuda.stream(), cuda.event()
    address, source, result = cuda.allocate(8), cuda.pinned((2,)), cuda.pinned((2,))
    result[:] = 0

    def work():
        cuda.upload(address, source, stream)
        assert driver.enqueue(stream, lambda: np.multiply(view(address, 2), 2, view(address, 2)))
        cuda.download(result, address, stream)

    graph = cuda.capture(stream, work)
    for values in ([1, 2], [5, 7]):
        source[:] = values
        cuda.launch(graph, stream)
        cuda.record(done, stream)
        cuda.synchronize(done)
        np.testing.assert_array_equal(result, np.multiply(values, 2))
    assert driver.counts.enqueued == 1
    assert driver.counts.launches == 2
    assert driver.counts.held()["executables"] == 1
    assert "graphs" not in driver.counts.held()


def allocation(cuda, stream):
    cuda.allocate(64)


def pageable_copy(cuda, stream):
    cuda.upload(cuda.made, np.zeros(4, np.float32), stream)


def waiting(cuda, stream):
    cuda.synchronize(cuda.recorded)


def event_of_another_stream(cuda, stream):
    cuda.wait(stream, cuda.recorded)


def error_of_the_host(cuda, stream):
    raise CudaError("CUDA refused by the test")


@pytest.mark.parametrize(
    "forbidden",
    [allocation, pageable_copy, waiting, event_of_another_stream, error_of_the_host],
)
def test_a_capture_that_fails_tells_why_and_leaves_the_stream_usable(cuda, driver, forbidden):
    stream, other = cuda.stream(), cuda.stream()
    cuda.made, cuda.recorded = cuda.allocate(16), cuda.event()
    cuda.record(cuda.recorded, other)
    before = driver.counts.held()
    with pytest.raises(CudaError, match=r"CUDA refused (?!cuStreamEndCapture)"):
        cuda.capture(stream, lambda: forbidden(cuda, stream))
    assert driver.counts.held() == before
    cuda.launch(cuda.capture(stream, lambda: None), stream)


def test_without_a_gpu_the_error_names_the_reason(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SSDiffError, match="CUDA_VISIBLE_DEVICES hides every GPU; choose `backend="):
        open_cuda()


def test_a_driver_that_finds_no_gpu_is_named_in_one_sentence(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-2")
    with pytest.raises(SSDiffError, match=r"cuInit \(error 100\); .*nvidia-smi\); choose `backend"):
        open_cuda()


def test_without_a_cuda_package_the_error_names_both(driver, monkeypatch):
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        SSDiffError,
        match=r"neither pycuda nor cuda-python can be imported \(.*; install cuda-bindings in",
    ):
        open_cuda()


def test_the_package_that_is_installed_is_opened_once_for_each_gpu(make_cuda, monkeypatch):
    if make_cuda is CudaPython:
        monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    opened = open_cuda(1)
    assert type(opened) is make_cuda
    assert opened is open_cuda(1)
    assert opened.device.name == "Stand-in GPU 1"


@pytest.mark.parametrize("thread", [False, True])
def test_a_process_that_frees_nothing_ends_quietly(driver, make_cuda, thread):
    code = f"""
import sys, threading
from tests.support.driver import load_driver
load_driver()[0].reset()
from ssdiff_trt.runtime.backends.tensorrt.cuda_packages import {make_cuda.__name__} as make_cuda
kept = []
def work():
    cuda = make_cuda()
    with cuda.current():
        kept.extend([cuda, cuda.stream(), cuda.event(), cuda.allocate(9), cuda.pinned((2,))])
if {thread}:
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
else:
    work()
print(len(kept))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")
