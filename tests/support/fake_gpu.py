"""Fake TensorRT on the stand-in driver: an engine that computes a function in numpy.

Each call of an engine is one host function on the stream, which takes one millisecond there.
"""

from __future__ import annotations

import contextlib
import types

import numpy as np

from ssdiff_trt.runtime.backends.tensorrt.cuda import Device
from tests.support.driver import view


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
        dtypes: types of inputs and outputs that are not float32, by name.
        refuse_at: number of the call, from 1, that fails.
        scratch: bytes of device memory of an execution context.
    """

    def __init__(self, driver, specs, network, dtypes=None, refuse_at=None, scratch=256):
        self.driver, self.specs, self.network = driver, specs, network
        self.dtypes, self.refuse_at, self.scratch = dtypes or {}, refuse_at, scratch
        self.num_io_tensors = len(specs)

    def get_tensor_name(self, index):
        return list(self.specs)[index]

    def get_tensor_dtype(self, name):
        return self.dtypes.get(name, DataType.FLOAT)

    def get_tensor_shape(self, name):
        return [-1 if size == "batch" else size for size in self.specs[name].shape]

    def create_engine_inspector(self):
        return types.SimpleNamespace(get_engine_information=lambda kind: '{"Layers": []}')

    def create_execution_context(self):
        address = self.driver.allocate(self.scratch)
        return FakeContext(self, address) if address else None


class FakeContext:
    """An execution context with device memory, which it frees when it is dropped.

    It refuses batches above 32 and addresses that are not aligned to 256 bytes.
    """

    def __init__(self, engine, scratch):
        self.engine, self.scratch = engine, scratch
        self.shapes, self.addresses, self.enqueued = {}, {}, 0

    def __del__(self):
        self.engine.driver.free(self.scratch)

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return shape[0] <= 32

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream):
        self.enqueued += 1
        if self.enqueued == self.engine.refuse_at:
            return False
        network, addresses = self.engine.network, dict(self.addresses)
        shapes = self.shapes | {"coefficients": (3,)}

        def work():
            inputs = {
                name: view(addresses[name], int(np.prod(shape))).reshape(shape)
                for name, shape in shapes.items()
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
        DataType=DataType,
        LayerInformationFormat=types.SimpleNamespace(JSON=0),
        Logger=Logger,
        Runtime=lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
    )
