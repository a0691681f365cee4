"""The training loop: x0-prediction of the residual, L1, AdamW, an average of the weights.

After SSDiff (arXiv 2404.11537, section 4.1): noise is added to the residual at a timestep drawn
uniformly from 0..999 of the cosine schedule, and the network gives the residual back.

All randomness of an iteration comes from generators seeded by the run's seed and the number of
the iteration. So a run that was killed goes on as if nothing had been, to the bit.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ssdiff_ref.network.checkpoint import save_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.training.config import Config
from ssdiff_ref.training.pairs import Supply
from ssdiff_ref.training.synthesis import Batch
from ssdiff_ref.training.validation import Scores, Validation
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import T, alphas_cumprod

STATE, LOSSES, VALIDATION = "state.pt", "losses.csv", "validation.csv"
BEST, LAST = "best.safetensors", "last.safetensors"
_LOSS_FIELDS = ("iteration", "loss", "learning_rate", "samples_per_s")
_VALIDATION_FIELDS = ("iteration", "ergas", "sam", "q2n")
_LOG_EVERY = 50
_DARKEST = 0.03
"""Of full scale; patches darker than that count no more than this."""


class Trainer:
    """A run, and its folder.

    Args:
        config: of the run.
        net: the weights to start from; trained in place.
        supply: of samples; must draw from ``generator``.
        validation: held-out patches.
        generator: on the CPU.
        device: to train on.
        folder: for the state, the weights and the curves; a state found there is taken up.
    """

    def __init__(
        self,
        config: Config,
        net: SSNet,
        supply: Supply,
        validation: Validation,
        generator: Generator,
        device: torch.device,
        folder: Path,
    ) -> None:
        self.config, self.folder = config, folder
        self._supply, self._validation = supply, validation
        self._random, self._device = generator, device
        self._noise = Generator(device)
        cuda = device.type == "cuda"
        self.net = net.to(device).train()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = SSNet(net.bands).to(device).eval()
        self.average.load_state_dict(net.state_dict())
        compiled = cuda if config.compile is None else config.compile
        self._forward: Any = torch.compile(self.net) if compiled else self.net
        half = config.precision == "bfloat16" or (config.precision == "auto" and cuda)
        self._precision: Any = (
            (lambda: torch.autocast(device.type, dtype=torch.bfloat16)) if half else nullcontext
        )
        self._optimizer = torch.optim.AdamW(
            self.net.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self._alphas = torch.tensor(alphas_cumprod(), dtype=torch.float32, device=device)
        self.iteration = 0
        self.best: Scores | None = None
        self._since_best = 0
        if (folder / STATE).is_file():
            self._resume()

    def _rate(self, iteration: int) -> float:
        """Rises linearly, then falls along half a cosine."""
        config = self.config
        rise = min(1.0, (iteration + 1) / max(config.warmup, 1))
        fall = 0.5 * (1 + math.cos(math.pi * iteration / config.iterations))
        return config.learning_rate * rise * (config.final_rate + (1 - config.final_rate) * fall)

    def _loss(self, batch: Batch) -> Tensor:
        count = len(batch.residual)
        times = torch.randint(T, (count,), generator=self._random).to(self._device)
        noise = torch.randn(batch.residual.shape, generator=self._noise, device=self._device)
        kept = self._alphas[times][:, None, None, None]
        x_t = kept.sqrt() * batch.residual + (1 - kept).sqrt() * noise
        with self._precision():
            found = self._forward(x_t, batch.pan, batch.lms, batch.ms, times.float())
        error = (found.float() - batch.residual).abs()
        if self.config.relative:
            error = error * (0.2 / (batch.lms.mean((1, 2, 3), keepdim=True) + _DARKEST))
        return error.mean()

    def step(self) -> Tensor:
        """One iteration; its loss."""
        stage = self.config.stage_at(self.iteration)
        key = self.config.seed * 1_000_003 + self.iteration
        self._random.manual_seed(key)
        self._noise.manual_seed(key)
        if self.config.alternate:
            self.net.select_trained_branch(
                "spectral" if self.iteration // self.config.alternate % 2 == 0 else "spatial"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.iteration)
        loss = self._loss(self._supply.draw(stage.patch, stage.batch))
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimizer.step()
        self._follow()
        self.iteration += 1
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the average follow; at first quickly, for the start is worth nothing."""
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        averages, current = self.average.state_dict(), self.net.state_dict()
        pairs = [
            (averages[name], value) for name, value in current.items() if value.is_floating_point()
        ]
        ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def run(self, progress: Progress, seconds: float = math.inf) -> bool:
        """Train until the end, or for so long; then the state is saved.

        Args:
            progress: told how work goes.
            seconds: after which to stop.

        Returns:
            Whether the end was reached.
        """
        config, began = self.config, time.monotonic()
        losses: list[Tensor] = []
        samples, since = 0, began
        with progress, self._saving():
            limited = math.isfinite(seconds)
            total = int(seconds) if limited else config.iterations - self.iteration
            progress.start(f"Training{' (seconds)' if limited else ''}", total)
            told = 0
            while not self._over() and time.monotonic() - began < seconds:
                losses.append(self.step())
                samples += config.stage_at(self.iteration - 1).batch
                done = min(int(time.monotonic() - began), total) if limited else told + 1
                progress.advance(done - told)
                told = done
                if self.iteration % _LOG_EVERY == 0:
                    loss = float(torch.stack(losses).mean())
                    if not math.isfinite(loss):
                        raise SSDiffError(
                            f"The loss is not finite at iteration {self.iteration}; lower the "
                            "learning rate and start from an earlier state."
                        )
                    now = time.monotonic()
                    row = self.iteration, loss, self._rate(self.iteration), samples / (now - since)
                    _append(self.folder / LOSSES, _LOSS_FIELDS, row)
                    losses, samples, since = [], 0, now
                if (
                    self.iteration % config.validate_every == 0
                    or self.iteration == config.iterations
                ):
                    progress.note(self.validate())
                    since = time.monotonic()
                if self.iteration % config.save_every == 0:
                    self.save()
        return self._over()

    def _over(self) -> bool:
        patience = self.config.patience
        return self.iteration >= self.config.iterations or 0 < patience <= self._since_best

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Save the state however the block ends."""
        try:
            yield
        finally:
            self.save()

    def validate(self) -> str:
        """Score the averaged weights, and keep them if they are the best; what to say of it."""
        scores = self._validation(self.average)
        row = (self.iteration, scores.ergas, scores.sam, scores.q2n)
        _append(self.folder / VALIDATION, _VALIDATION_FIELDS, row)
        told = f"Iteration {self.iteration}: {scores}"
        if not scores.better_than(self.best):
            self._since_best += 1
            return told
        self.best, self._since_best = scores, 0
        with atomic_write(self.folder / BEST) as unfinished:
            save_checkpoint(self.average, unfinished)
        return f"{told}; the best so far"

    def save(self) -> None:
        """Write the state, and the averaged weights as they are."""
        state = {
            "config": self.config.model_dump(),
            "iteration": self.iteration,
            "best": asdict(self.best) if self.best else None,
            "since_best": self._since_best,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        with atomic_write(self.folder / STATE) as unfinished:
            torch.save(state, unfinished)
        with atomic_write(self.folder / LAST) as unfinished:
            save_checkpoint(self.average, unfinished)

    def _resume(self) -> None:
        state = torch.load(self.folder / STATE, map_location=self._device, weights_only=True)
        if changed := [
            name
            for name, value in self.config.model_dump().items()
            if state["config"].get(name) != value
        ]:
            raise SSDiffError(
                f"{self.folder} holds a run with another {changed[0]}; give another --output, or "
                "the configuration that it was begun with."
            )
        self.iteration = state["iteration"]
        self.best = Scores(**state["best"]) if state["best"] else None
        self._since_best = state["since_best"]
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        for name in (LOSSES, VALIDATION):
            _cut(self.folder / name, self.iteration)


def _append(path: Path, fields: tuple[str, ...], row: tuple[float, ...]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(fields)
        writer.writerow([f"{value:.6g}" for value in row])


def _cut(path: Path, iteration: int) -> None:
    """Drop the rows of iterations that are done again."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    with atomic_write(path) as unfinished, unfinished.open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if float(row[0]) <= iteration)])
