"""Fake TensorRT on the stand-in driver: an engine that computes a function in numpy.

Each call of an engine is one host function on the stream, which takes one millisecond there.
"""

from __future__ import annotations

import contextlib
import types

import numpy as np

from ssdiff_trt.runtime.backends.tensorrt.cuda import Device
from tests.support.driver import view
from tests.support.fake_rtx import RuntimeConfig


class FakeCuda:
    """A GPU that nothing is computed on, for tests that only choose engines."""

    device = Device("Fake GPU", (8, 6), 13000)

    def current(self):
        return contextlib.nullcontext()

    def memory(self):
        return 1 << 39, 1 << 40


class FakeEngine:
    """An engine that computes a function of the inputs of the step graph.

    Args:
        driver: the stand-in driver.
        specs: inputs and outputs by name.
        network: function of the inputs.
        batch: batch size, tiles.
        dtypes: types of inputs and outputs that are not float32, by name.
        refuse_at: number of the call, from 1, that fails.
        scratch: device memory that a context needs, bytes for each tile.
    """

    def __init__(self, driver, specs, network, batch, dtypes=None, refuse_at=None, scratch=0):
        self.driver, self.specs, self.network, self.batch = driver, specs, network, batch
        self.dtypes, self.refuse_at = dtypes or {}, refuse_at
        self.device_memory_size_v2 = scratch * batch
        self.num_io_tensors = len(specs)

    def get_tensor_name(self, index):
        return list(self.specs)[index]

    def get_tensor_dtype(self, name):
        return self.dtypes.get(name, DataType.FLOAT)

    def get_tensor_shape(self, name):
        return [self.batch if size == "batch" else size for size in self.specs[name].shape]

    def create_engine_inspector(self):
        return types.SimpleNamespace(get_engine_information=lambda kind: '{"Layers": []}')

    create_runtime_config = RuntimeConfig

    def create_execution_context(self, given="static"):
        # The examples leave the memory to the context; the backend provides it.
        assert getattr(given, "strategy", given) in ("static", "user managed")
        state = self.driver.allocate(256)
        return FakeContext(self, state) if state else None


class FakeContext:
    """An execution context with a little device memory, which it frees when it is dropped.

    It refuses addresses that are not aligned to 256 bytes.
    """

    def __init__(self, engine, state):
        self.engine, self.state, self.addresses, self.enqueued = engine, state, {}, 0
        self.memory = 0

    def __del__(self):
        self.engine.driver.free(self.state)

    def set_device_memory(self, address, size):
        assert self.engine.driver.size(address) == size
        self.memory = size

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream):
        assert self.memory == self.engine.device_memory_size_v2
        self.enqueued += 1
        if self.enqueued == self.engine.refuse_at:
            return False
        network, addresses = self.engine.network, dict(self.addresses)
        shapes = {name: self.engine.get_tensor_shape(name) for name in self.engine.specs}

        def work():
            inputs = {
                name: view(addresses[name], int(np.prod(shape))).reshape(shape)
                for name, shape in shapes.items()
                if name != "x_next"
            }
            result = network(**inputs)
            view(addresses["x_next"], result.size)[:] = result.ravel()

        return self.engine.driver.enqueue(stream, work)


class DataType:
    FLOAT = types.SimpleNamespace(name="FLOAT")
    HALF = types.SimpleNamespace(name="HALF")


def fake_tensorrt(engine):
    """A fake TensorRT package that deserialises everything to ``engine``."""

    class Logger:
        ERROR = 0

        def __init__(self, severity):
            pass

    return types.SimpleNamespace(
        __name__="fake_tensorrt",
        __version__="10.14.1",
        BuilderFlag=types.SimpleNamespace(),
        DataType=DataType,
        ExecutionContextAllocationStrategy=types.SimpleNamespace(USER_MANAGED="user managed"),
        LayerInformationFormat=types.SimpleNamespace(JSON=0),
        Logger=Logger,
        Runtime=lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
    )
