"""Execution contexts of engines, and the kernels that TensorRT-RTX compiles for them."""

from __future__ import annotations

from typing import Any

from ssdiff_trt.runtime.backends.tensorrt.engine import EngineKey
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache


class Kernels:
    """Kernels that TensorRT-RTX compiles when an engine first runs, kept beside the engine.

    Args:
        cache: cache to keep them in.
        key: key of the engine.
    """

    def __init__(self, cache: EngineCache, key: EngineKey) -> None:
        self._cache, self._key = cache, key
        self._kept = False
        self._kernels: Any = None

    def attach(self, runtime_config: Any) -> None:
        """Make contexts with a runtime configuration use the kept kernels, and collect new ones."""
        self._kernels = runtime_config.create_runtime_cache()
        kept = self._cache.kernels(self._key)
        # TensorRT-RTX itself refuses kernels of another GPU, driver or version.
        self._kept = bool(kept) and self._kernels.deserialize(kept)
        runtime_config.set_runtime_cache(self._kernels)

    def keep(self) -> None:
        """Store the kernels, once the engine has run, unless they are those that were kept."""
        if not self._kept:
            self._cache.put_kernels(self._key, bytes(self._kernels.serialize()))
            self._kept = True


def create_context(trt: Any, engine: Any, kernels: Kernels | None) -> Any:
    """Create an execution context whose device memory the caller provides; None if that fails.

    Args:
        trt: the package.
        engine: the engine.
        kernels: of the engine, where the package is TensorRT-RTX.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if kernels is None:
        return engine.create_execution_context(strategy)
    runtime_config = engine.create_runtime_config()
    runtime_config.set_execution_context_allocation_strategy(strategy)
    kernels.attach(runtime_config)
    return engine.create_execution_context(runtime_config)


def capturable(context: Any, stream: int) -> bool:
    """Whether a CUDA graph can be captured, by TensorRT-RTX; TensorRT cannot say beforehand."""
    ask = getattr(context, "is_stream_capturable", None)
    return ask is None or ask(stream)
