"""Opened networks, one for each bundle that is run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from importlib.util import find_spec

from ssdiff_trt.runtime.backends.protocol import Backend, close
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.blocks import LocalExecutor
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.options import ExecutionOptions
from ssdiff_trt.runtime.parity.verification import require_parity
from ssdiff_trt.runtime.progress import Progress


class Networks:
    """Opens the network of a bundle when it is first needed. Any number of threads may use it.

    Args:
        execution: what runs networks.
        opened: an opened backend for all bundles in place of that, which is not closed.
        progress: receives progress updates of opening.
    """

    def __init__(
        self, execution: ExecutionOptions, opened: Backend | None, progress: Progress
    ) -> None:
        self._execution, self._opened, self._progress = execution, opened, progress
        self._networks: dict[str, tuple[Backend, threading.Lock]] = {}
        self._opening = threading.Lock()

    def close(self) -> None:
        """Wait for runs on a GPU and free the networks. A later call opens them again."""
        with self._opening:
            networks = list(self._networks.values())
            self._networks.clear()
        for backend, in_turn in networks:
            if backend is not self._opened:
                with in_turn:
                    close(backend)

    def network(self, bundle: Bundle) -> Backend:
        """The backend that runs a bundle, opened now if need be."""
        return self._network(bundle)[0]

    @contextmanager
    def executor(self, bundle: Bundle) -> Iterator[LocalExecutor]:
        """Computes blocks with a bundle; on a GPU one executor does at a time."""
        backend, lock = self._network(bundle)
        in_turn = lock if backend.device == "gpu" else nullcontext()
        with in_turn, ExitStack() as opened:

            def fallback() -> Backend:
                """ONNX Runtime on the CPU, where it is installed."""
                name = self._execution.backend if self._opened is None else "onnxruntime"
                if find_spec("onnxruntime"):
                    name = "onnxruntime"
                execution = replace(self._execution, backend=name, precision="fp32", device=None)
                in_fp32 = self._open(execution, bundle)
                opened.callback(close, in_fp32)
                return in_fp32

            yield LocalExecutor(backend, fallback, self._execution.batch)

    def _network(self, bundle: Bundle) -> tuple[Backend, threading.Lock]:
        with self._opening:
            if bundle.sha256 not in self._networks:
                backend = self._opened or self._open(self._execution, bundle)
                self._networks[bundle.sha256] = backend, threading.Lock()
            return self._networks[bundle.sha256]

    def _open(self, execution: ExecutionOptions, bundle: Bundle) -> Backend:
        arguments = asdict(execution)
        name = arguments.pop("backend")
        backend = open_backend(name, bundle, progress=self._progress, **arguments)
        if backend.device == "cpu" and backend.precision == "bf16":
            # How far OpenVINO is off depends on its version and the processor.
            threads = execution.threads
            exact = open_backend("openvino", bundle, precision="fp32", threads=threads)
            try:
                require_parity(bundle, backend, exact)
            finally:
                close(exact)
        for warning in unsuited(execution, backend):
            self._progress.warn(warning)
        return backend


def unsuited(execution: ExecutionOptions, backend: Backend) -> Iterator[str]:
    """Warnings where the backend that was opened does not suit what was asked for."""
    if backend.device != "cpu":
        return
    if execution.device is not None:
        yield (
            f"`device={execution.device}` has no effect, as the network runs on the CPU; "
            "ssdiff-trt doctor says why no GPU is used"
        )
    if backend.precision == "fp16":
        yield "fp16 is slower than fp32 on a CPU; choose `precision=fp32`"
