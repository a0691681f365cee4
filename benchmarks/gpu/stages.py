"""The stages of the GPU check; :mod:`benchmarks.gpu.check` runs each in a process of its own."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.gpu.references import measure_references
from benchmarks.gpu.report import (
    Compared,
    Engine,
    Gpu,
    Graphs,
    Machine,
    Outcome,
    Report,
    merged,
    write,
)
from ssdiff_trt.runtime.backends.protocol import Backend, close
from ssdiff_trt.runtime.backends.registry import GPU_BACKENDS, open_backend, why_not
from ssdiff_trt.runtime.backends.tensorrt.backend import TensorRT
from ssdiff_trt.runtime.backends.tensorrt.cuda import Cuda, open_cuda, why_no_cuda, why_no_package
from ssdiff_trt.runtime.benchmark.environment import environment
from ssdiff_trt.runtime.benchmark.results import Benchmark
from ssdiff_trt.runtime.benchmark.rounds import bench
from ssdiff_trt.runtime.benchmark.tables import print_tables
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import BackendError, SSDiffError
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.parity.ladder import real_tiles
from ssdiff_trt.runtime.parity.verification import verify
from ssdiff_trt.runtime.progress import Lines
from ssdiff_trt.runtime.schedule import make_schedule
from ssdiff_trt.runtime.tiles.batch import Tiles

BATCH = 8
"""Tiles of the engines whose results are checked."""
ONE, TEN = make_schedule((999,)), make_schedule(range(0, 1000, 100))
Part = TypeVar("Part")


class Settings(Strict):
    """What is checked."""

    bundle: str
    precisions: tuple[Precision, ...]
    batches: tuple[int, ...]
    """Numbers of tiles in a batch, for throughput."""


class Recorder(Lines):
    """Prints plain lines, and keeps the warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        super().warn(text)


def attempt(call: Callable[[Recorder], Part]) -> Outcome[Part]:
    """The result of a call, or its error: whatever fails is what the check is for."""
    began, progress = time.monotonic(), Recorder()
    result, error = None, None
    try:
        result = call(progress)
    except SSDiffError as refusal:
        error = str(refusal)
    except Exception as failure:
        traceback.print_exc()
        error = f"{type(failure).__name__}: {failure}"
    seconds = round(time.monotonic() - began, 2)
    return Outcome(seconds=seconds, error=error, warnings=tuple(progress.warnings), result=result)


class Check:
    """The stages, each a method that returns its result.

    Args:
        settings: what is checked.
        report: the results of the stages before.
        keep: receives the results so far, after each backend, as the next one may crash.
    """

    def __init__(
        self,
        settings: Settings,
        report: Report | None = None,
        keep: Callable[[dict[str, Any]], None] = lambda results: None,
    ) -> None:
        self._settings, self._report, self._keep = settings, report, keep
        self._bundle = open_bundle(settings.bundle)

    def environment(self, progress: Recorder) -> Machine:
        """The machine, its GPU, and the backends that cannot be used there."""
        gpu, unusable = None, {}
        no_gpu = why_no_cuda() or why_no_package()
        if no_gpu is None:
            cuda = open_cuda()
            _, memory = _memory(cuda)
            gpu = Gpu(
                name=cuda.device.name,
                sm=cuda.device.sm,
                driver=cuda.device.driver,
                memory_bytes=memory,
                package=cuda.package,
            )
            unusable = {name: reason for name in GPU_BACKENDS if (reason := why_not(name))}
        return Machine(
            environment=environment(),
            gpu=gpu,
            no_gpu=no_gpu,
            unusable=unusable,
            bundle=self._bundle.manifest.name,
            bundle_sha256=self._bundle.sha256,
        )

    def engines(self, progress: Recorder) -> dict[str, Outcome[Engine]]:
        """Each backend in each precision, opened and closed."""
        return self._each(self._possible(), self._open)

    def parity(self, progress: Recorder) -> dict[str, Outcome[Compared]]:
        """Each of them against FP32 on the CPU, at each step."""
        return self._each(self._opened(), self._compare)

    def graphs(self, progress: Recorder) -> dict[str, Outcome[Graphs]]:
        """CUDA graphs against plain loops, and what becomes of NaN."""
        return self._each(self._opened(), self._capture)

    def latency(self, progress: Recorder) -> Benchmark:
        """One tile at a time, one step and ten."""
        return self._measure(progress, batches=(1,), steps=(1, 10))

    def throughput(self, progress: Recorder) -> Benchmark:
        """Batches of tiles, one step."""
        return self._measure(progress, batches=self._settings.batches, steps=(1,))

    def references(self, progress: Recorder) -> Any:
        """PyTorch on the same tiles, and what bounds the time of a step."""
        return measure_references(self._bundle, self._settings.batches, attempt)

    def _possible(self) -> list[tuple[str, Precision]]:
        """Backends that can be used here, in the precisions that they and the bundle have."""
        machine = self._report.environment.result if self._report else None
        unusable = machine.unusable if machine else {}
        found = [
            (name, precision)
            for name in GPU_BACKENDS
            for precision in self._bundle.precisions
            if name not in unusable and precision in self._settings.precisions
            # ONNX Runtime has no convolutions in BF16.
            if (name, precision) != ("onnxruntime-cuda", "bf16")
        ]
        if not found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in unusable.items())
            raise BackendError(
                f"No backend can use the GPU ({reasons or 'none in these precisions'}); install "
                "one of them."
            )
        return found

    def _opened(self) -> list[tuple[str, Precision]]:
        """Those of them that the stage ``engines`` has opened."""
        stage = self._report.engines if self._report else None
        if stage is None or stage.result is None:
            return self._possible()
        opened = [
            which
            for which in self._possible()
            if (one := stage.result.get(" ".join(which))) and one.result
        ]
        if not opened:
            raise BackendError(
                "The stage engines has opened no backend; correct that, and run it again."
            )
        return opened

    def _each(
        self, candidates: list[tuple[str, Precision]], check: Callable[..., Part]
    ) -> dict[str, Outcome[Part]]:
        results = {}
        for name, precision in candidates:
            print(f"[{time.strftime('%H:%M:%S')}] {name} {precision}", flush=True)
            results[f"{name} {precision}"] = attempt(partial(check, name=name, precision=precision))
            self._keep(results)
        return results

    @contextmanager
    def _backend(self, progress: Recorder, name: str, precision: Precision) -> Iterator[Backend]:
        backend = open_backend(
            name, self._bundle, precision=precision, batch=BATCH, progress=progress
        )
        try:
            yield backend
        finally:
            close(backend)

    def _open(self, progress: Recorder, name: str, precision: Precision) -> Engine:
        cuda = open_cuda()
        (free_before, _), began = _memory(cuda), time.monotonic()
        with self._backend(progress, name, precision) as backend:
            taken: dict[str, Any] = {
                "backend": backend.describe(),
                "open_seconds": round(time.monotonic() - began, 2),
                "build_seconds": getattr(backend, "build_seconds", None),
                "layers": getattr(backend, "layers", {}),
                "free_open": _memory(cuda)[0],
            }
        del backend  # ONNX Runtime frees its memory with it
        return Engine(free_before=free_before, free_closed=_memory(cuda)[0], **taken)

    def _compare(self, progress: Recorder, name: str, precision: Precision) -> Compared:
        found = verify(str(self._bundle.path), name, precision, progress=progress)
        return Compared(backend=found.backend, parity=found.parity, faults=found.faults)

    def _capture(self, progress: Recorder, name: str, precision: Precision) -> Graphs:
        model = self._bundle.manifest.model
        tiles = real_tiles(model.bands, model.tile, BATCH)
        with self._backend(progress, name, precision) as backend:
            captured = same = None
            if isinstance(backend, TensorRT):
                captured, same = compare_graph_and_loop(backend, tiles)
            return Graphs(captured=captured, same_bytes=same, keeps_nan=keeps_nan(backend, tiles))

    def _measure(self, progress: Recorder, **settings: Any) -> Benchmark:
        opened = self._opened()
        benchmark = bench(
            str(self._bundle.path),
            backends=tuple(dict.fromkeys(name for name, _ in opened)),
            precisions=tuple(dict.fromkeys(precision for _, precision in opened)),
            rounds=1,
            repeats=20,
            seconds=0.5,
            progress=progress,
            **settings,
        )
        print_tables(benchmark)
        return benchmark


def _memory(cuda: Cuda) -> tuple[int, int]:
    """Free and total memory of the GPU, bytes."""
    with cuda.current():
        return cuda.memory()


def compare_graph_and_loop(backend: TensorRT, tiles: Tiles) -> tuple[bool, bool | None]:
    """Whether a CUDA graph was captured, and whether it gives the bytes that the loop gives."""
    (by_graph,) = backend.sample([tiles], TEN)
    if any(slot.graph is None for slot in backend._slots):
        return False, None
    for slot in backend._slots:
        slot.graph = None
    (step_by_step,) = backend.sample([tiles], TEN)
    return True, bool(np.array_equal(by_graph, step_by_step))


def keeps_nan(backend: Backend, tiles: Tiles) -> bool:
    """Whether a NaN in PAN gives NaN in the image of its tile, and in no other image.

    PAN reaches the image through the network alone, so nothing but the network and the check at the
    end of a step can pass the NaN on.
    """
    pan = tiles.pan.copy()
    pan[0, 0, 5, 5] = np.nan
    (image,) = backend.sample([tiles._replace(pan=pan)], ONE)
    return bool(np.isnan(image[0]).any() and np.isfinite(image[1:]).all())


def run_stage(stage: str, folder: Path, settings: Settings) -> None:
    """Run a stage, and write its result to its file in the folder of the check."""
    report = merged(folder) if stage != "environment" else None
    path, began = folder / f"{stage}.json", time.monotonic()

    def keep(results: dict[str, Any]) -> None:
        error = f"the process of the stage ended after {list(results)[-1]}"
        write(path, Outcome(seconds=time.monotonic() - began, error=error, result=results))

    write(path, attempt(lambda progress: getattr(Check(settings, report, keep), stage)(progress)))


if __name__ == "__main__":
    run_stage(sys.argv[1], Path(sys.argv[2]), Settings.model_validate_json(sys.argv[3]))
