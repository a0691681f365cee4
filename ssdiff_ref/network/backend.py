"""The PyTorch reference as a backend, so that benchmarks time it like the other backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ssdiff_ref.network.apfm import AttentionForm
from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.fmim import FMIMForm
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.runtime.backends.protocol import Device
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.cpus import choose_threads
from ssdiff_trt.runtime.options import Precision, PrecisionChoice
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import Schedule, sample
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


class TorchBackend:
    """Runs the network in PyTorch, on a GPU if available; the diffusion state is FP32.

    Args:
        bundle: bundle to take the weights from.
        precision: precision of the network.
        fmim: form of FMIM; see :class:`ssdiff_ref.network.ssnet.SSNet`.
        attention: form of attention, likewise. Both defaults are the paper's definitions.
        compiled: whether to use ``torch.compile``.
        batch: tiles per batch; 1 by default.
        threads: CPU threads; see :func:`ssdiff_trt.runtime.cpus.choose_threads`.
        weights: network whose weights are used in place of the bundle's; they are copied.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision = "fp32",
        fmim: FMIMForm = "fft",
        attention: AttentionForm = "materialised",
        compiled: bool = False,
        batch: int | None = None,
        threads: int | None = None,
        weights: SSNet | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(choose_threads(threads))
        self.batch, self.precision = batch or 1, precision
        self.device: Device = "gpu" if torch.cuda.is_available() else "cpu"
        self._torch_device = "cuda" if self.device == "gpu" else "cpu"
        self._dtype = _TYPES[precision]
        weights = weights or load_checkpoint(bundle.path).net
        net = SSNet(weights.bands, fmim, attention)
        net.load_state_dict(weights.state_dict())
        net = net.eval().to(self._torch_device, self._dtype)
        self._net: Any = torch.compile(net, dynamic=False) if compiled else net
        self._form = f"{'compiled' if compiled else 'eager'}, {fmim}, {attention} attention"

    def _on_device(self, tiles: Tiles) -> list[Tensor]:
        return [torch.from_numpy(layer).to(self._torch_device) for layer in tiles]

    def _predict(self, layers: list[Tensor], x: Tensor, t: float) -> Tensor:
        timesteps = torch.full((len(x),), t, device=self._torch_device)
        inputs = (tensor.to(self._dtype) for tensor in (x, *layers[1:], timesteps))
        return self._net(*inputs).float()

    def _sample(self, layers: list[Tensor], schedule: Schedule) -> Tensor:
        noise, _, lms, _ = layers
        return sample(lambda x, t: self._predict(layers, x, t), lms, noise, schedule)

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        for tiles in batches:
            with torch.inference_mode():
                images = self._sample(self._on_device(tiles), schedule)
            yield images.cpu().numpy()

    @torch.inference_mode()
    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        state = torch.from_numpy(x).to(self._torch_device)
        return self._predict(self._on_device(tiles), state, t).cpu().numpy()

    def describe(self) -> str:
        device = torch.cuda.get_device_name() if self.device == "gpu" else "the CPU"
        return f"PyTorch {torch.__version__} on {device}, {self.precision}, {self._form}"


class TorchOnGpu(TorchBackend):
    """A :class:`TorchBackend` that can time itself by CUDA events."""

    @torch.inference_mode()
    def milliseconds(self, tiles: Tiles, schedule: Schedule, repeats: int) -> list[float]:
        """Device time of each repeat in ms, from CUDA events.

        See :class:`ssdiff_trt.runtime.backends.protocol.TimedByDevice`.
        """
        layers, durations = self._on_device(tiles), []
        for _ in range(repeats):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self._sample(layers, schedule)
            stop.record()
            stop.synchronize()
            durations.append(start.elapsed_time(stop))
        return durations


def open_torch(
    name: str,
    bundle: Bundle,
    *,
    precision: PrecisionChoice = "auto",
    threads: int | None = None,
    batch: int | None = None,
    device: int | None = None,
    trust_engines: bool = False,
    progress: Progress | None = None,
    **form: Any,
) -> TorchBackend:
    """Open the PyTorch backend; by default the reference: eager, FP32.

    Parameters are those of :func:`ssdiff_trt.runtime.backends.registry.open_backend`; ``form``
    takes ``fmim``, ``attention`` and ``compiled`` of :class:`TorchBackend`.
    """
    kind = TorchOnGpu if torch.cuda.is_available() else TorchBackend
    if device is not None and torch.cuda.is_available():
        torch.cuda.set_device(device)
    network_precision: Precision = "fp32" if precision == "auto" else precision
    return kind(bundle, precision=network_precision, threads=threads, batch=batch, **form)
