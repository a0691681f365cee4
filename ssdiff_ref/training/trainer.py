"""The training loop: x0-prediction of the residual with L1 loss, AdamW and averaged weights.

After SSDiff (arXiv 2404.11537, section 4.1): noise is added to the residual at a timestep drawn
uniformly from 0..999 of the cosine schedule, and the network predicts the residual.

All random numbers of an iteration come from generators seeded by the run's seed and the iteration
number, so an interrupted run resumes bit-exactly.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ssdiff_ref.network.checkpoint import save_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.network.state_dict import DAMAGED, read_file
from ssdiff_ref.training.config import Config
from ssdiff_ref.training.losses import back_project, brightness_weight, local_decorrelation, rms
from ssdiff_ref.training.pairs import PairSource
from ssdiff_ref.training.synthesis import Batch
from ssdiff_ref.training.validation import Scores
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import T, alphas_cumprod

STATE, LOSSES, VALIDATION = "state.pt", "losses.csv", "validation.csv"
BEST, LAST = "best.safetensors", "last.safetensors"
_LOSS_FIELDS = ("iteration", "loss", "learning_rate", "samples_per_s")
_VALIDATION_FIELDS = ("iteration", "ergas", "sam", "q2n")
_LOG_EVERY = 50
"""Iterations between rows of the loss file."""


class Trainer:
    """Trains a network and saves state, weights and scores in a folder.

    Args:
        config: configuration of the run.
        net: network with the initial weights; trained in place.
        pairs: source of training samples; must draw from ``generator``.
        validation: validation on held-out patches.
        generator: random generator on the CPU.
        device: device to train on.
        folder: folder for state, weights and scores; a state found there is resumed.
        term: adds to the loss of each iteration; receives a function that predicts the images
            ``[N, C, H, W]`` of a batch.
    """

    def __init__(
        self,
        config: Config,
        net: SSNet,
        pairs: PairSource,
        validation: Callable[[SSNet], Scores],
        generator: Generator,
        device: torch.device,
        folder: Path,
        term: Callable[[Callable[[Batch], Tensor]], Tensor] | None = None,
    ) -> None:
        self.config, self.folder = config, folder
        self._pairs, self._validation, self._term = pairs, validation, term
        self._random, self._device = generator, device
        self._noise = Generator(device)
        cuda = device.type == "cuda"
        self.net = net.to(device).train()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = SSNet(net.bands).to(device).eval()
        self.average.load_state_dict(net.state_dict())
        compiled = cuda if config.compile is None else config.compile
        self._forward: Any = torch.compile(self.net) if compiled else self.net
        low_precision = config.precision == "bfloat16" or (config.precision == "auto" and cuda)
        self._precision: Any = (
            (lambda: torch.autocast(device.type, dtype=torch.bfloat16))
            if low_precision
            else nullcontext
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
        for name, columns in ((LOSSES, _LOSS_FIELDS), (VALIDATION, _VALIDATION_FIELDS)):
            _drop_rows_after(folder / name, columns, self.iteration)

    def _rate(self, iteration: int) -> float:
        """Learning rate: linear warm-up, then half a cosine."""
        config = self.config
        warmup = min(1.0, (iteration + 1) / max(config.warmup, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * iteration / config.iterations))
        return (
            config.learning_rate * warmup * (config.final_rate + (1 - config.final_rate) * cosine)
        )

    def _predict(self, batch: Batch) -> Tensor:
        """The images that the network makes of a batch, at random timesteps."""
        count = len(batch.residual)
        times = torch.randint(T, (count,), generator=self._random)
        if self.config.first_timestep:
            first = torch.rand(count, generator=self._random) < self.config.first_timestep
            times[first] = T - 1
        times = times.to(self._device)
        noise = torch.randn(batch.residual.shape, generator=self._noise, device=self._device)
        alpha_bar = self._alphas[times][:, None, None, None]
        x_t = alpha_bar.sqrt() * batch.residual + (1 - alpha_bar).sqrt() * noise
        with self._precision():
            predicted = self._forward(x_t, batch.pan, batch.lms, batch.ms, times.float())
        return batch.lms + predicted.float()

    def _loss(self, batch: Batch) -> Tensor:
        batch = Batch(*(layer.to(self._device) for layer in batch))
        image = self._predict(batch)
        truth = batch.lms + batch.residual
        corrected = back_project(image, batch.ms, batch.position, self.config.back_projection)
        # Later steps sample from the image before it is corrected.
        error = (self._error(image - truth) + self._error(corrected - truth)) / 2
        if self.config.relative:
            error = error * brightness_weight(batch.lms)
        loss = error.mean()
        if weight := self.config.pan_correlation:
            loss = loss + weight * local_decorrelation(corrected, batch.pan)
        if self._term is not None:
            loss = loss + self._term(self._predict)
        return loss

    def _error(self, difference: Tensor) -> Tensor:
        """Of each sample, from ``[N, C, H, W]``."""
        if self.config.error == "absolute":
            return difference.abs().mean((1, 2, 3))
        return rms(difference)

    def step(self) -> Tensor:
        """Run one iteration and return its loss."""
        stage = self.config.stage_at(self.iteration)
        key = (self.config.seed * 1_000_003 + self.iteration) % 2**64
        self._random.manual_seed(key)
        self._noise.manual_seed(key)
        if self.config.alternate:
            self.net.select_trained_branch(
                "spectral" if self.iteration // self.config.alternate % 2 == 0 else "spatial"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.iteration)
        loss = self._loss(self._pairs.draw(stage.patch, stage.batch))
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimizer.step()
        self._update_average()
        self.iteration += 1
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Update the averaged weights; with less decay at first, to discard the initial weights."""
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        averages, current = self.average.state_dict(), self.net.state_dict()
        pairs = [
            (averages[name], value) for name, value in current.items() if value.is_floating_point()
        ]
        targets, values = ([pair[side] for pair in pairs] for side in (0, 1))
        torch._foreach_lerp_(targets, values, 1 - decay)

    def run(self, progress: Progress, seconds: float = math.inf) -> bool:
        """Train until the last iteration, early stopping or the time limit, and save the state.

        Args:
            progress: receives progress updates.
            seconds: time limit.

        Returns:
            Whether training is finished: the time limit did not stop it.

        Raises:
            SSDiffError: if the loss is not finite.
        """
        config, started = self.config, time.monotonic()
        losses: list[Tensor] = []
        samples, since = 0, started
        with progress, self._saving():
            limited = math.isfinite(seconds)
            total = math.ceil(seconds) if limited else config.iterations - self.iteration
            progress.start(f"Training{' (seconds)' if limited else ''}", total)
            reported = 0
            while not self._finished() and time.monotonic() - started < seconds:
                losses.append(self.step())
                samples += config.stage_at(self.iteration - 1).batch
                done = min(int(time.monotonic() - started), total) if limited else reported + 1
                progress.advance(done - reported)
                reported = done
                if self.iteration % _LOG_EVERY == 0:
                    loss = float(torch.stack(losses).mean())
                    if not math.isfinite(loss):
                        raise InputError(
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
        return self._finished()

    def _finished(self) -> bool:
        patience = self.config.patience
        return self.iteration >= self.config.iterations or 0 < patience <= self._since_best

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Save the state when the block ends, also on an exception."""
        try:
            yield
        finally:
            self.save()

    def validate(self) -> str:
        """Score the averaged weights, save them if they are the best so far; returns a summary."""
        scores = self._validation(self.average)
        row = (self.iteration, scores.ergas, scores.sam, scores.q2n)
        _append(self.folder / VALIDATION, _VALIDATION_FIELDS, row)
        summary = f"Iteration {self.iteration}: {scores}"
        if not scores.better_than(self.best):
            self._since_best += 1
            return summary
        self.best, self._since_best = scores, 0
        with atomic_write(self.folder / BEST) as unfinished:
            save_checkpoint(self.average, unfinished)
        return f"{summary}; the best so far"

    def save(self) -> None:
        """Write the state and the current averaged weights."""
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
        path = self.folder / STATE
        try:
            state = read_file(path)
            changed = [
                name
                for name, value in self.config.model_dump().items()
                if repr(state["config"].get(name)) != repr(value)  # NaN is equal to NaN
            ]
            if not changed:
                self._restore(state)
        except DAMAGED as error:
            raise InputError(
                f"The state {path} cannot be resumed, it is damaged or incomplete; delete it to "
                "start anew, or give another `output`."
            ) from error
        if changed:
            raise InputError(
                f"{self.folder} contains a run with another {changed[0]}; give another `output`, "
                "or the configuration of that run."
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.best = Scores(**state["best"]) if state["best"] else None
        self._since_best = state["since_best"]
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])


def _append(path: Path, fields: tuple[str, ...], row: tuple[float, ...]) -> None:
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(fields)
        writer.writerow([f"{value:.6g}" for value in row])


def _drop_rows_after(path: Path, fields: tuple[str, ...], iteration: int) -> None:
    """Drop the rows after ``iteration``, which a resumed run computes again, and incomplete ones.

    Without any row left, which is so before the first iteration, the file is removed.

    Raises:
        InputError: if a new run begins where such a file of something else lies.
    """
    if not path.exists():
        return
    lines = path.read_text("utf-8", errors="replace").splitlines(keepends=True)
    rows = [line.strip().split(",") for line in lines if line.endswith("\n")]
    kept = [
        row
        for row in rows
        if len(numbers := _numbers(row)) == len(fields) and 0 < numbers[0] <= iteration
    ]
    if not kept:
        if not iteration and lines and not ",".join(fields).startswith(lines[0].strip()):
            raise InputError(f"{path} is not of a training run; give another `output`.")
        path.unlink()
        return
    with atomic_write(path) as unfinished, unfinished.open("w", newline="") as file:
        csv.writer(file).writerows([fields, *kept])


def _numbers(row: list[str]) -> list[float]:
    """The numbers of a row; none if a field is not a number."""
    try:
        return [float(field) for field in row]
    except ValueError:
        return []
