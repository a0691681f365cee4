"""The PyTorch reference as a backend, so that benchmarks measure it like the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ssdiff_ref.network.apfm import AttentionForm
from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.fmim import FMIMForm
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_trt.runtime.backends.protocol import Device, PrecisionChoice
from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import Schedule, sample
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


class TorchBackend:
    """The network in PyTorch, on a GPU if there is one; the state stays in FP32.

    Args:
        bundle: whose weights to take.
        precision: of the network.
        fmim: see :class:`ssdiff_ref.network.ssnet.SSNet`.
        attention: likewise. With the default of both, it is the network as it is defined.
        compiled: by ``torch.compile``.
        batch: tiles at a time.
        threads: of the CPU.
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
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.batch, self.precision = batch or 1, precision
        self.device: Device = "gpu" if torch.cuda.is_available() else "cpu"
        self._place, self._dtype = "cuda" if self.device == "gpu" else "cpu", _TYPES[precision]
        weights = load_checkpoint(bundle.path).net
        net = SSNet(weights.bands, fmim, attention)
        net.load_state_dict(weights.state_dict())
        net = net.eval().to(self._place, self._dtype)
        self._net: Any = torch.compile(net, dynamic=False) if compiled else net
        self._how = f"{'compiled' if compiled else 'eager'}, {fmim}, {attention} attention"

    def _on_device(self, tiles: Tiles) -> list[Tensor]:
        return [torch.from_numpy(part).to(self._place) for part in tiles]

    def _call(self, parts: list[Tensor], x: Tensor, t: float) -> Tensor:
        told = torch.full((len(x),), t, device=self._place)
        given = (part.to(self._dtype) for part in (x, *parts[1:], told))
        return self._net(*given).float()

    def _sample(self, parts: list[Tensor], schedule: Schedule) -> Tensor:
        noise, _, lms, _ = parts
        return sample(lambda x, t: self._call(parts, x, t), lms, noise, schedule)

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        for tiles in batches:
            with torch.inference_mode():
                images = self._sample(self._on_device(tiles), schedule)
            yield images.cpu().numpy()

    @torch.inference_mode()
    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        state = torch.from_numpy(x).to(self._place)
        return self._call(self._on_device(tiles), state, t).cpu().numpy()

    def describe(self) -> str:
        where = torch.cuda.get_device_name() if self.device == "gpu" else "the CPU"
        return f"PyTorch {torch.__version__} on {where}, {self.precision}, {self._how}"


class TorchOnGpu(TorchBackend):
    """The same where CUDA has a clock."""

    @torch.inference_mode()
    def milliseconds(self, tiles: Tiles, schedule: Schedule, repeats: int) -> list[float]:
        """See :class:`ssdiff_trt.runtime.backends.protocol.TimedByDevice`; by CUDA events."""
        parts, found = self._on_device(tiles), []
        for _ in range(repeats):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self._sample(parts, schedule)
            stop.record()
            stop.synchronize()
            found.append(start.elapsed_time(stop))
        return found


def open_torch(
    name: str,
    bundle: Bundle,
    *,
    precision: PrecisionChoice = "auto",
    threads: int | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
    **form: Any,
) -> TorchBackend:
    """Open the PyTorch backend; by default the reference, eager and in FP32.

    Parameters are those of :func:`ssdiff_trt.runtime.backends.registry.open_backend`.
    """
    kind = TorchOnGpu if torch.cuda.is_available() else TorchBackend
    chosen: Precision = "fp32" if precision == "auto" else precision
    return kind(bundle, precision=chosen, threads=threads, batch=batch, **form)
