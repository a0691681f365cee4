"""Adaptation as commands start it: which scenes, and before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any

import click

from ssdiff_trt.runtime.arguments import above_zero
from ssdiff_trt.runtime.errors import InputError, install
from ssdiff_trt.runtime.files import with_suffix
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.pairs import default_output
from ssdiff_trt.runtime.pansharpener import DEFAULT
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.scenes import SceneEntry, read_scenes


def scenes_to_adapt(
    pan: str | None, ms: str | None, also: tuple[tuple[str, str], ...], table: str | None
) -> list[SceneEntry]:
    """The scenes that weights are adapted to: a pair and others, or those of a table.

    A table is one of ``ssdiff-trt run``; of its options only those that say how pixels are
    understood are kept.
    """
    from ssdiff_trt.cli.run import run_command
    from ssdiff_trt.cli.scenes import converter

    if (pan is None) == (table is None) or (pan is None) != (ms is None):
        raise click.UsageError("PAN and MS, or --scenes, are needed; give one of them.")
    if table is None:
        return [SceneEntry(str(a), (str(b),)) for a, b in ((pan, ms), *also)]
    if also:
        raise click.UsageError("--also adds to PAN and MS; write further scenes into the table.")
    return [
        replace(entry, options=_of_pixels(entry.options))
        for entry in read_scenes(table, converter(click.Context(run_command)), results=False)
    ]


def _of_pixels(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say how pixels are understood."""
    names = {field.name for field in fields(PairOptions)}
    return {name: value for name, value in options.items() if name in names}


def adapted_bundle(
    minutes: float,
    pan: str,
    ms: Sequence[str],
    output: str | None,
    bundle: str | None,
    options: Mapping[str, Any],
    progress: Progress,
) -> str | None:
    """The bundle for a run of a scene: adapted to it now, or by the same command before.

    Args:
        minutes: longest time.
        pan: PAN, or a product.
        ms: MS, or the files of its bands; empty for a product.
        output: of the run; the adapted bundle lies beside it and is kept.
        bundle: bundle to start from.
        options: of the run.
        progress: receives progress updates.

    Returns:
        The adapted bundle; ``bundle`` if the adapted weights were not better.

    Raises:
        SSDiffError: if the time is not above 0, PyTorch is missing, or the scene cannot be used.
    """
    above_zero("adapt", minutes)
    if find_spec("torch") is None:
        raise InputError(
            f"Adaptation needs PyTorch, which is not installed; {install('train')}, or run without "
            "`adapt`."
        )
    target = with_suffix(output or default_output((*ms, pan)[0]), ".ssdiff")
    if target.exists():
        progress.note(f"{target} exists and is used; delete it to adapt again")
        return str(target)
    from ssdiff_trt.export.adaptation import adapt

    done = adapt(
        [SceneEntry(pan, tuple(ms))],
        target,
        bundle=None if bundle == DEFAULT else bundle,
        minutes=minutes,
        progress=progress,
        **_of_pixels(options),
    )
    return str(target) if done else bundle
