"""PyTorch on the GPU: the network, eager and compiled, and the rates that bound its time."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.report import References
from ssdiff_trt.runtime.benchmark.results import Benchmark
from ssdiff_trt.runtime.benchmark.rounds import bench
from ssdiff_trt.runtime.benchmark.tables import print_tables
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.progress import Progress

if TYPE_CHECKING:
    from ssdiff_ref.network.backend import TorchBackend

GFLOP = {32: 0.71, 64: 6.50}
"""Of matrix products and convolutions in a step (benchmarks.work), by pixels along a tile."""
REFERENCE = "ssdiff_ref.network.backend:open_torch"
EAGER: dict[str, dict[str, Any]] = {
    "eager fused": {"fmim": "matmul", "attention": "fused"},
    "eager half": {"fmim": "matmul", "attention": "fused", "precision": "fp16"},
}
COMPILED = {
    "compiled": EAGER["eager fused"] | {"compiled": True},
    "compiled half": EAGER["eager half"] | {"compiled": True},
}


def open_variant(name: str, bundle: Bundle, **options: Any) -> TorchBackend:
    """Open a variant of the PyTorch reference, by its name in EAGER or COMPILED."""
    from ssdiff_ref.network.backend import open_torch

    return open_torch(name, bundle, **options | (EAGER | COMPILED)[name])


def why_no_torch() -> str | None:
    """Why PyTorch cannot be measured, as a clause; None if it can."""
    if find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    return None if torch.cuda.is_available() else f"PyTorch {torch.__version__} has no GPU"


def measure_references(
    bundle: Bundle, batches: tuple[int, ...], attempt: Callable[..., Any]
) -> References:
    """Measure PyTorch on the GPU, never on the CPU.

    Args:
        bundle: bundle with the weights.
        batches: numbers of tiles in a batch; one tile is measured as well, in eager mode.
        attempt: gives the outcome of a call that receives a progress.
    """
    if lack := why_no_torch():
        print(f"{lack}; the references are left out")
        return References(lack=lack)
    return References(
        floors=attempt(lambda progress: floors(bundle.manifest.model.tile)),
        eager=attempt(lambda p: _measure(p, bundle, EAGER, (1, *batches), REFERENCE)),
        compiled=attempt(lambda p: _measure(p, bundle, COMPILED, (max(batches),))),
    )


def _measure(
    progress: Progress,
    bundle: Bundle,
    variants: dict[str, dict[str, Any]],
    batches: tuple[int, ...],
    reference: str | None = None,
) -> Benchmark:
    benchmark = bench(
        str(bundle.path),
        backends=(),
        batches=batches,
        steps=(1,),
        rounds=1,
        repeats=20,
        seconds=0.5,
        openers=dict.fromkeys(variants, f"{__name__}:open_variant"),
        reference=reference,
        progress=progress,
    )
    print_tables(benchmark)
    return benchmark


def floors(tile: int) -> dict[str, float]:
    """Rate of matrix products and memory bandwidth of the GPU, and lower bounds of a step."""
    import torch

    def best(call: Callable[[], object], repeats: int = 10) -> float:
        """Median time in s."""
        times = []
        for _ in range(repeats):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop) / 1000)
        return median(times)

    rates = {}
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        rate = 2 * 8192**3 / best(lambda a=a: a @ a)  # type: ignore[misc]
        rates[f"{name} TFLOP/s"] = rate / 1e12
        rates[f"floor of a patch-step in {name}, us"] = GFLOP[tile] * 1e9 / rate * 1e6
    block = torch.empty(1 << 28, device="cuda")
    copy = torch.empty_like(block)
    rates["GB/s"] = 2 * block.nbytes / best(lambda: copy.copy_(block)) / 1e9
    return rates
