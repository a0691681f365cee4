"""Fakes of what TensorRT-RTX has besides TensorRT."""

from __future__ import annotations


class RuntimeCache:
    """A cache of kernels; it accepts those of its own driver."""

    content = b""

    def deserialize(self, content):
        if not content.startswith(b"driver 580"):
            return False
        self.content = content
        return True

    def serialize(self):
        return self.content


class RuntimeConfig:
    """A runtime configuration."""

    strategy = kernels = None

    create_runtime_cache = RuntimeCache

    def set_runtime_cache(self, kernels):
        self.kernels = kernels

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy
