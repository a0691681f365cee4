"""Pansharpening from Python: rasters, open datasets or arrays in, a file or an array out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import rasterio

from ssdiff_trt.runtime.arguments import none_left, take
from ssdiff_trt.runtime.arrays import AnyArray, ArrayOutput
from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.blocks import Executor
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.data_arrays import DataArrayPair, fuse_later
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.estimate import Estimate, estimate
from ssdiff_trt.runtime.networks import Networks
from ssdiff_trt.runtime.options import (
    CLUSTER,
    EXECUTION,
    ClusterOptions,
    ExecutionOptions,
    Precision,
)
from ssdiff_trt.runtime.pairs import RunOptions, are_arrays, open_arrays, open_rasters
from ssdiff_trt.runtime.pansharpen import run
from ssdiff_trt.runtime.plan.plan import OpenPair, Plan, make_plan
from ssdiff_trt.runtime.plan.result import Result
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.quicklook import draw_quicklook
from ssdiff_trt.runtime.raster.image import BandFiles, Raster
from ssdiff_trt.runtime.raster.products import read_product

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ssdiff_trt.runtime.cluster.cluster import Cluster
    from ssdiff_trt.runtime.options import RunArguments, SharpenerArguments

CACHE_BYTES = 64 << 20
"""Bytes of decoded and unwritten blocks that GDAL keeps; its own default grows with the machine."""
DEFAULT = "default"
"""Stands for the shipped bundle that fits the number of bands."""


class Pansharpener:
    """Pansharpens many pairs with one network, which is opened once.

    The network opens at the first pair, one for each number of bands, and stays open until the
    context ends. Any number of threads may call it: a backend on the CPU computes their pairs side
    by side, one on a GPU in turn. Each call has its own rasters; open datasets that are passed in
    must not be used by another thread meanwhile.

    Args:
        bundle: directory, name of a shipped bundle, or an opened one; ``default`` for the shipped
            one that fits the number of bands.
        bands: number of MS bands, to open the network at once.
        backend: a name, or an opened backend, which is not closed.
        progress: receives progress updates of opening, and of runs unless these have their own.
        options: fields of :class:`ssdiff_trt.runtime.options.ExecutionOptions` and
            :class:`ssdiff_trt.runtime.options.ClusterOptions`.

    Raises:
        SSDiffError: if bundle, backend or cluster cannot be used.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = DEFAULT,
        *,
        bands: int | None = None,
        backend: str | Backend = "auto",
        progress: Progress | None = None,
        **options: Unpack[SharpenerArguments],
    ) -> None:
        arguments: dict[str, Any] = dict(options)
        self._bundle = None if bundle == DEFAULT else bundle
        self._opened = None if isinstance(backend, str) else backend
        if isinstance(backend, str):
            arguments["backend"] = backend
        self._execution = take(ExecutionOptions, arguments)
        cluster = take(ClusterOptions, arguments)
        none_left(arguments, type(self).__name__)
        self._progress = progress or Progress()
        self._networks = Networks(self._execution, self._opened, self._progress)
        self._cluster: Cluster | None = None
        if cluster.is_used:
            from ssdiff_trt.runtime.cluster.cluster import Cluster

            if self._opened is not None:
                raise InputError(
                    "An opened backend cannot be used by other processes; give its name.",
                    parameter="backend",
                )
            self._cluster = Cluster(cluster, self._execution, self._progress)
        elif bands is not None:
            self.network(bundle_for(bands, self._bundle))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for runs on a GPU, free the networks and leave the cluster. A later call opens them
        again."""
        self._networks.close()
        if self._cluster:
            self._cluster.close()

    def network(self, bundle: Bundle) -> Backend:
        """The backend that runs a bundle in this process, opened now if need be."""
        return self._networks.network(bundle)

    def describe(self, plan: Plan) -> str:
        """Describe what runs the network of a plan, opened now if need be."""
        if self._cluster:
            return self._cluster.executor(plan, self._progress).describe()
        return self.network(plan.bundle).describe()

    def _executor(self, plan: Plan, progress: Progress) -> AbstractContextManager[Executor]:
        if self._cluster:
            return nullcontext(self._cluster.executor(plan, progress))
        return self._networks.executor(plan.bundle)

    @overload
    def __call__(
        self,
        pan: AnyArray,
        ms: AnyArray,
        *,
        progress: Progress | None = None,
        **options: Unpack[RunArguments],
    ) -> AnyArray: ...

    @overload
    def __call__(
        self,
        pan: Raster,
        ms: Raster | BandFiles | None = None,
        output: str | Path | None = None,
        *,
        quicklook: bool = False,
        progress: Progress | None = None,
        **options: Unpack[RunArguments],
    ) -> Result: ...

    def __call__(
        self,
        pan: Raster | AnyArray,
        ms: Raster | BandFiles | AnyArray | None = None,
        output: str | Path | None = None,
        *,
        quicklook: bool = False,
        progress: Progress | None = None,
        **options: Unpack[RunArguments],
    ) -> Result | AnyArray:
        """Pansharpen a pair.

        Args:
            pan: PAN: a path, an open rasterio dataset, or an array ``[H, W]``. Without ``ms`` the
                path of a product, see :mod:`ssdiff_trt.runtime.raster.products`.
            ms: MS with 4 times the pixel size: a path, a list of paths of its bands, a dataset, or
                an array ``[C, H/4, W/4]``.
            output: GeoTIFF to write; by default ``MS_pansharpened.tif`` in the current directory.
                Not for arrays.
            quicklook: also draw a PNG beside the output.
            progress: receives progress updates.
            options: fields of :class:`~ssdiff_trt.runtime.options.PairOptions`,
                :class:`~ssdiff_trt.runtime.options.SamplingOptions`,
                :class:`~ssdiff_trt.runtime.options.OutputOptions` and
                :class:`~ssdiff_trt.runtime.options.BlockOptions`. For arrays, ``full_scale`` has to
                be stated.

        Returns:
            A ``Result`` for rasters; for arrays the fused image ``[C, H, W]`` in the dtype of
            ``ms``, a masked array if it has holes.

        Warns:
            SSDiffWarning: once for each of the result's warnings, unless ``progress`` shows them.

        Raises:
            SSDiffError: when the input cannot be used; before long work begins, and without
                leaving an output.
        """
        progress = progress or self._progress
        pair = self.plan(pan, ms, output, quicklook=quicklook, progress=progress, **options)
        with pair as plan:
            for warning in plan.warnings:
                progress.warn(warning)
            source = plan.source
            if isinstance(source, DataArrayPair) and source.lazy:
                return fuse_later(plan, partial(_run_later, self._execution))
            result = self.run(plan, progress)
        for warning in result.run_warnings():
            progress.warn(warning)
        if not isinstance(plan.sink, ArrayOutput):
            return result
        return source.wrap(plan.sink) if isinstance(source, DataArrayPair) else plan.sink.image

    @contextmanager
    def plan(
        self,
        pan: Raster | AnyArray,
        ms: Raster | BandFiles | AnyArray | None = None,
        output: str | Path | None = None,
        *,
        quicklook: bool = False,
        progress: Progress | None = None,
        **options: Unpack[RunArguments],
    ) -> Iterator[Plan]:
        """Open a pair and decide everything about its run; parameters are those of a call.

        Yields:
            The plan, for ``run``. The pair closes with the context.
        """
        progress = progress or self._progress
        arguments: dict[str, Any] = dict(options)
        if ms is None and isinstance(pan, str | Path):
            product = read_product(pan)
            pan, ms = product.pan.path, product.ms.path
            arguments = product.options(arguments)
            progress.note(product.describe())
        chosen = RunOptions.of(arguments, quicklook)
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
            self._open(pan, ms, output, chosen, progress) as pair,
        ):
            yield make_plan(
                pair,
                self._bundle,
                chosen.pair,
                chosen.sampling,
                block=chosen.splitting.block,
                precision=self._precision(),
                seeds=chosen.splitting.uncertainty_seeds,
            )

    def _open(
        self, pan: Any, ms: Any, output: str | Path | None, options: RunOptions, progress: Progress
    ) -> AbstractContextManager[OpenPair]:
        if not are_arrays(pan, ms):
            return open_rasters(pan, ms, output, options, progress)
        if self._cluster:
            raise InputError(
                "Arrays cannot be opened by other processes; give rasters, or leave `workers` and "
                "`scheduler` out."
            )
        pair = open_arrays(pan, ms, output, options)
        if isinstance(pair.source, DataArrayPair) and pair.source.lazy and self._opened is not None:
            raise InputError(
                "Arrays of dask are computed later, maybe by other processes, where an opened "
                "backend is not; give its name.",
                parameter="backend",
            )
        return nullcontext(pair)

    def _precision(self) -> Precision | None:
        """Precision of the network, where it is known before it is opened."""
        if self._opened is not None:
            return self._opened.precision
        return None if self._execution.precision == "auto" else self._execution.precision

    def estimate(self, plan: Plan) -> Estimate:
        """What a plan of :meth:`plan` would cost, while its context is open; nothing is written."""
        return estimate(plan, self.network(plan.bundle), self._execution.batch)

    def run(self, plan: Plan, progress: Progress | None = None) -> Result:
        """Carry out a plan of :meth:`plan`, while its context is open."""
        progress = progress or self._progress
        try:
            with self._executor(plan, progress) as executor:
                result = run(plan, executor, progress)
        finally:
            if plan.sink.left:
                progress.note(plan.sink.left)
        if plan.quicklook:
            draw_quicklook(plan, plan.quicklook)
        if plan.upload:
            plan.upload.send([file for file in (plan.output, plan.quicklook) if file], progress)
        return result


@cache
def _for_later(execution: ExecutionOptions) -> Pansharpener:
    """What computes arrays of dask in this process."""
    return Pansharpener(**asdict(execution))


def _run_later(execution: ExecutionOptions, plan: Plan) -> None:
    _for_later(execution).run(plan)


def pansharpen(
    pan: Raster | AnyArray,
    ms: Raster | BandFiles | AnyArray | None = None,
    output: str | Path | None = None,
    *,
    bundle: str | Path | Bundle | None = DEFAULT,
    backend: str | Backend = "auto",
    quicklook: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Any:
    """Pansharpen one pair; see :class:`Pansharpener` for the parameters and what is returned.

    Args:
        options: fields of all groups of :mod:`ssdiff_trt.runtime.options`.
    """
    execution = {name: options.pop(name) for name in (*EXECUTION, *CLUSTER) if name in options}
    with Pansharpener(bundle, backend=backend, progress=progress, **execution) as sharpener:
        return sharpener(pan, ms, output, quicklook=quicklook, **options)
