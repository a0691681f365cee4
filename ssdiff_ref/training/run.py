"""A training run as one function."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.training.config import Config, read_config
from ssdiff_ref.training.curves import draw_curves
from ssdiff_ref.training.imagery import (
    ARRAYS,
    Picture,
    expand,
    make_scenes,
    pack,
    read_sources,
    unpack,
)
from ssdiff_ref.training.pairs import Mixed, ReadyPairs, SimulatedPairs, Supply, batches, joined
from ssdiff_ref.training.trainer import Trainer
from ssdiff_ref.training.validation import PATCH, Validation
from ssdiff_ref.training.widening import widen
from ssdiff_trt.runtime.bundle.store import SHIPPED
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress

_VALIDATION_SEED = 20_240_411


def train(
    config: str | Path,
    output: str | Path,
    *,
    data: str | Path = ".",
    packed: str | Path | None = None,
    minutes: float | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Trainer:
    """Train weights, or go on where a run in the same folder stopped.

    Args:
        config: TOML file; see :class:`ssdiff_ref.training.config.Config`.
        output: folder for the state, weights and curves; made if it is not there.
        data: folder that paths of the configuration start from.
        packed: imagery packed by :func:`pack_imagery`, instead of the files.
        minutes: to train for at most; the state is saved and the same call goes on.
        device: such as ``cpu`` or ``cuda``; CUDA where there is one by default.
        progress: told how work goes.

    Raises:
        SSDiffError: when the configuration or the imagery cannot be used.
    """
    return _run(read_config(config), output, data, packed, minutes, device, progress)


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
    minutes: float | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Trainer:
    """Fine-tune weights branch by branch (L-BAF), on patches of a configuration's last stage.

    Args:
        weights: to start from.
        period: iterations after which the other branch learns.
        iterations: in all.
        learning_rate: at the start; it falls along a cosine.
        config, output, data, packed, minutes, device, progress: as in :func:`train`.

    Raises:
        SSDiffError: as :func:`train` does.
    """
    settings = read_config(config)
    stage = settings.stages[-1].model_copy(update={"iterations": iterations})
    changes = {
        "start": str(Path(weights).absolute()),
        "stages": (stage,),
        "learning_rate": learning_rate,
        "alternate": period,
        "warmup": 0,
    }
    told = settings.model_copy(update=changes)
    return _run(told, output, data, packed, minutes, device, progress)


def _run(
    settings: Config,
    output: str | Path,
    data: str | Path,
    packed: str | Path | None,
    minutes: float | None,
    device: str | None,
    progress: Progress | None,
) -> Trainer:
    progress, folder, target = progress or Progress(), Path(data), Path(output)
    where = _device(device)
    net = _start(settings, folder)
    pictures = unpack(Path(packed)) if packed else read_sources(settings.sources, folder)
    pictures += make_scenes(settings.sources, settings.bands, settings.seed)
    if target.exists() and not target.is_dir():
        raise SSDiffError(f"{target} is a file, expected a folder; give another --output.")
    target.mkdir(parents=True, exist_ok=True)
    generator = Generator()
    supply = _supply(settings, pictures, folder, False, generator, where)
    quiet = Generator().manual_seed(_VALIDATION_SEED)
    held_out = _supply(settings, pictures, folder, True, quiet, where)
    validation = Validation(joined(batches(held_out, PATCH, settings.validation_patches, 8)))
    trainer = Trainer(settings, net, supply, validation, generator, where, target)
    progress.note(
        f"{len(pictures)} pictures; held-out places by interpolation alone: "
        f"{validation.interpolation}"
    )
    if trainer.iteration:
        progress.note(f"Going on from iteration {trainer.iteration} of {settings.iterations}")
    done = trainer.run(progress, minutes * 60 if minutes else math.inf)
    draw_curves(target)
    progress.note(
        f"{target}: {'finished' if done else 'stopped'} at iteration {trainer.iteration} of "
        f"{settings.iterations}"
    )
    return trainer


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SSDiffError(
            f"The device {name} cannot be used ({str(error).splitlines()[0]}); give cpu or cuda."
        ) from error
    return device


def pack_imagery(
    config: str | Path, output: str | Path, *, data: str | Path = ".", overwrite: bool = False
) -> Path:
    """Write all rasters of a configuration as one file, to train where there is nothing else."""
    target = Path(output)
    if target.exists() and not overwrite:
        raise SSDiffError(f"{target} exists; choose another name or pass --overwrite.")
    settings = read_config(config)
    pack(read_sources(settings.sources, Path(data)), target)
    return target


def _start(config: Config, folder: Path) -> SSNet:
    if config.start is None:
        torch.manual_seed(config.seed)
        return SSNet(config.bands)
    shipped_one = SHIPPED / f"{config.start}.ssdiff"
    net = load_checkpoint(shipped_one if shipped_one.is_dir() else folder / config.start).net
    if net.bands > config.bands:
        raise SSDiffError(
            f"{config.start} is for {net.bands} bands, expected {config.bands} or fewer; start "
            "from other weights."
        )
    return net if net.bands == config.bands else widen(net, config.bands)


def _supply(
    config: Config,
    pictures: list[Picture],
    folder: Path,
    held_out: bool,
    generator: Generator,
    device: torch.device,
) -> Supply:
    supplies: list[tuple[Supply, float]] = []
    if parts := [picture.part(held_out) for picture in pictures]:
        group = 16 if device.type == "cuda" else 2
        simulated = SimulatedPairs(
            parts, config.bands, generator, device, group, config.pan_response
        )
        named = {picture.source.name: picture.source.weight for picture in pictures}
        supplies.append((simulated, sum(named.values())))
    for source in config.sources:
        arrays = [name for name in source.files if Path(name).suffix in ARRAYS]
        files = [path for pattern in arrays for path in expand(folder, pattern)]
        ready = [
            ReadyPairs(path, source, config.bands, held_out, generator, device) for path in files
        ]
        supplies += [(pairs, source.weight / len(ready)) for pairs in ready if len(pairs)]
    if not supplies:
        raise SSDiffError("The configuration leaves no imagery to draw from; add sources to it.")
    return supplies[0][0] if len(supplies) == 1 else Mixed(supplies, generator)
