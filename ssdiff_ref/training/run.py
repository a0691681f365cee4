"""Training, fine-tuning and packing of imagery as functions."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.training.config import Config, read_config
from ssdiff_ref.training.curves import draw_curves
from ssdiff_ref.training.imagery import (
    TrainingImage,
    expand,
    holds_pairs,
    make_scenes,
    pack,
    read_sources,
    unpack,
)
from ssdiff_ref.training.pairs import (
    CheckedSource,
    MixedPairs,
    PanCollectionPairs,
    SimulatedPairs,
    concatenate,
    draw_batches,
)
from ssdiff_ref.training.trainer import Trainer
from ssdiff_ref.training.validation import PATCH, Validation
from ssdiff_ref.training.widening import widen
from ssdiff_trt.runtime.arguments import above_zero, positive
from ssdiff_trt.runtime.bundle.store import shipped
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import check_parent, check_target
from ssdiff_trt.runtime.progress import Progress

_VALIDATION_SEED = 20_240_411


def train(
    config: str | Path,
    output: str | Path,
    *,
    data: str | Path = ".",
    packed: str | Path | None = None,
    weights_key: str | None = None,
    minutes: float | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Trainer:
    """Train weights; a run that was interrupted in the same folder is resumed.

    Args:
        config: TOML file; see :class:`ssdiff_ref.training.config.Config`.
        output: folder for state, weights and curves; created if missing.
        data: base of the relative paths in the configuration.
        packed: file written by :func:`pack_imagery`, to use instead of the rasters.
        weights_key: where in the file ``start`` of the configuration the weights are, such as
            ``ema``; needed if there are several.
        minutes: time limit; the state is saved, and the same call resumes the run.
        device: ``cpu`` or ``cuda``; by default CUDA if available.
        progress: receives progress updates.

    Raises:
        SSDiffError: if the configuration or the imagery cannot be used.
    """
    settings = _with_key(read_config(config), weights_key)
    return _run(settings, output, data, packed, minutes, device, progress)


def finetune(
    config: str | Path,
    output: str | Path,
    *,
    weights: str | Path,
    period: int = 100,
    iterations: int = 30_000,
    learning_rate: float = 1e-4,
    data: str | Path = ".",
    packed: str | Path | None = None,
    weights_key: str | None = None,
    minutes: float | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Trainer:
    """Fine-tune weights branch by branch (L-BAF), with the patches of the last stage.

    Args:
        weights: initial weights: a file, a bundle, or the name of a shipped bundle.
        period: iterations after which training switches to the other branch.
        iterations: total iterations.
        learning_rate: initial learning rate; it decreases along a cosine.
        weights_key: where in the file ``weights`` they are; needed if there are several.
        config, output, data, packed, minutes, device, progress: as in :func:`train`.

    Raises:
        SSDiffError: as :func:`train` does.
    """
    settings = read_config(config)
    stage = settings.stages[-1].model_copy(
        update={"iterations": positive("iterations", iterations)}
    )
    changes = {
        "start": str(weights if str(weights) in shipped() else Path(weights).absolute()),
        "weights_key": weights_key,
        "stages": (stage,),
        "learning_rate": above_zero("learning_rate", learning_rate),
        "alternate": positive("period", period),
        "warmup": 0,
    }
    settings = settings.model_copy(update=changes)
    return _run(settings, output, data, packed, minutes, device, progress)


def _with_key(settings: Config, weights_key: str | None) -> Config:
    """A configuration with another key, if one is given."""
    if weights_key is None:
        return settings
    return settings.model_copy(update={"weights_key": weights_key})


def _run(
    settings: Config,
    output: str | Path,
    data: str | Path,
    packed: str | Path | None,
    minutes: float | None,
    device: str | None,
    progress: Progress | None,
) -> Trainer:
    seconds = math.inf if minutes is None else 60 * above_zero("minutes", minutes)
    progress, folder, target = progress or Progress(), Path(data), Path(output)
    torch_device = _device(device)
    net = _initial_network(settings, folder, progress)
    images = unpack(Path(packed)) if packed else read_sources(settings.sources, folder)
    images += make_scenes(settings.sources, settings.bands, settings.seed)
    if os.path.exists(target) and not target.is_dir():
        raise InputError(f"{target} is a file, expected a folder; give another `output`.")
    check_parent(target / "any")
    generator = Generator()
    pairs = _pair_source(settings, images, folder, False, generator, torch_device)
    for stage in settings.stages:
        pairs.check(stage.patch)
    # Its own generator keeps the validation patches the same in every run.
    fixed = Generator().manual_seed(_VALIDATION_SEED)
    held_out = _pair_source(settings, images, folder, True, fixed, torch_device)
    validation = Validation(
        concatenate(draw_batches(held_out, PATCH, settings.validation_patches, 8)),
        share=settings.back_projection,
    )
    trainer = Trainer(settings, net, pairs, validation, generator, torch_device, target)
    target.mkdir(parents=True, exist_ok=True)
    progress.note(
        f"{len(images)} images; validation scores of interpolated MS: {validation.interpolation}"
    )
    if trainer.iteration:
        progress.note(f"Resuming from iteration {trainer.iteration} of {settings.iterations}")
    finished = trainer.run(progress, seconds)
    draw_curves(target)
    progress.note(
        f"{target}: {'finished' if finished else 'stopped'} at iteration {trainer.iteration} of "
        f"{settings.iterations}"
    )
    return trainer


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(int(name) if name.isdecimal() else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"The device {name} cannot be used ({str(error).splitlines()[0]}); give cpu, cuda, or "
            "the number of a GPU."
        ) from error
    return device


def pack_imagery(
    config: str | Path, output: str | Path, *, data: str | Path = ".", overwrite: bool = False
) -> Path:
    """Write all rasters of a configuration to one ``.npz``, to train on another machine.

    Raises:
        SSDiffError: if the output exists and ``overwrite`` is false, or a raster cannot be read.
    """
    target = Path(output)
    check_target(target, [config], overwrite)
    settings = read_config(config)
    pack(read_sources(settings.sources, Path(data)), target)
    return target


def _initial_network(config: Config, folder: Path, progress: Progress) -> SSNet:
    if config.start is None:
        torch.manual_seed(config.seed)
        return SSNet(config.bands)
    start = config.start if config.start in shipped() else folder / config.start
    checkpoint = load_checkpoint(start, config.weights_key)
    checkpoint.describe(progress)
    net = checkpoint.net
    if net.bands > config.bands:
        raise InputError(
            f"{config.start} is for {net.bands} bands, expected {config.bands} or fewer; start "
            "from other weights."
        )
    return net if net.bands == config.bands else widen(net, config.bands)


def _pair_source(
    config: Config,
    images: list[TrainingImage],
    folder: Path,
    held_out: bool,
    generator: Generator,
    device: torch.device,
) -> CheckedSource:
    pair_sources: list[tuple[CheckedSource, float]] = []
    if parts := [image.part(held_out) for image in images]:
        group = 16 if device.type == "cuda" else 2
        simulated = SimulatedPairs(
            parts,
            config.bands,
            generator,
            device,
            group,
            config.pan_response,
            config.arrays,
            config.simulation,
        )
        weights = {image.source.name: image.source.weight for image in images}
        pair_sources.append((simulated, sum(weights.values())))
    for source in config.sources:
        patterns = [name for name in source.files if holds_pairs(name)]
        files = [path for pattern in patterns for path in expand(folder, pattern)]
        file_pairs = [
            PanCollectionPairs(path, source, config.bands, held_out, generator, device)
            for path in files
        ]
        pair_sources += [
            (pairs, source.weight / len(file_pairs)) for pairs in file_pairs if len(pairs)
        ]
    if not pair_sources:
        purpose = "validation" if held_out else "training"
        raise InputError(
            f"The configuration has no imagery for {purpose}; add sources or change held_out."
        )
    if len(pair_sources) == 1:
        return pair_sources[0][0]
    return MixedPairs(pair_sources, generator)
