"""The noise schedule, boiled down to a few rows of numbers, and the sampling loop over them.

Notation, after DDIM (Song et al., 2021) with eta = 0 and a network that predicts ``x0``:

- ``t``: training timestep, 0 (almost clean) to 999 (pure noise);
- ``a``: cumulative product alpha_bar at ``t`` (Nichol & Dhariwal, 2021, eq. 17); ``a'``: the same
  at the next, smaller timestep of the schedule, 1 after the last;
- one step: ``x' = c0 x0 + c1 x`` with ``c1 = sqrt((1 - a') / (1 - a))`` and
  ``c0 = sqrt(a') - c1 sqrt(a)``. Nothing divides by ``sqrt(a)``, which is tiny at ``t = 999``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import SSDiffError

T = 1000
Sampler = Literal["consistent", "released"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
Array = TypeVar("Array", bound=Any)
"""A numpy array or a torch tensor; what is done with it here reads the same for both."""


def alphas_cumprod() -> NDArray[np.float64]:
    """Cumulative alphas ``[1000]`` of the cosine schedule: s = 0.008, betas capped at 0.999."""
    curve = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    return np.cumprod(1 - betas)


def spaced_timesteps(steps: int) -> tuple[int, ...]:
    """Evenly spaced timesteps for a number of steps, largest first.

    The field's "ddimN" rule: the first stride whose ``range(0, 1000, stride)`` has N members.
    Some N have no such stride (37, 41, ...); they get ``floor(1000 k / N)``. A single step starts
    from pure noise, so it is ``(999,)``.
    """
    if not 1 <= steps <= T:
        raise SSDiffError(f"{steps} steps were asked for; give 1 to {T}.")
    if steps == 1:
        return (T - 1,)
    stride = -(-T // steps)
    ascending: Sequence[int] = range(0, T, stride)
    if len(ascending) != steps:
        ascending = [T * k // steps for k in range(steps)]
    return tuple(reversed(ascending))


class Step(NamedTuple):
    """One step of the loop: ``x' = c0 x0 + c1 x``, with ``x0`` from the network at ``t``."""

    t: float
    """What the network is told, 0 to 999."""
    c0: float
    c1: float


@dataclass(frozen=True)
class Schedule:
    """A sampler as a table: what to tell the network at each step and how to combine."""

    sampler: Sampler
    timesteps: tuple[int, ...]
    """Training timesteps, largest first."""
    steps: tuple[Step, ...]

    @property
    def updates(self) -> NDArray[np.float32]:
        """The steps for graphs that do a whole step, ``[steps, 3]``.

        The next state is the sum of the step's image, the state and ``lms``, times these three;
        after the last step it is the image itself.
        """
        residual = float(self.sampler == "consistent")
        table = np.array([(c0, c1, -c0 * residual) for _, c0, c1 in self.steps], np.float32)
        table[-1] = 1, 0, 0
        return table


def make_schedule(timesteps: Sequence[int], sampler: Sampler = "consistent") -> Schedule:
    """The table of a sampler over explicit timesteps.

    Args:
        timesteps: distinct integers 0 to 999, in any order; they are visited largest first.
        sampler: ``consistent`` diffuses the residual and tells the network the timestep, as it was
            trained. ``released`` is what the authors' code does with their checkpoints: it
            diffuses the image and tells the network the position of the timestep in the list,
            counted from the smallest.

    Raises:
        SSDiffError: on an empty list, a repeated or out-of-range timestep, an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise SSDiffError(f"The sampler {sampler!r} is unknown; choose {' or '.join(SAMPLERS)}.")
    order = tuple(sorted((int(t) for t in timesteps), reverse=True))
    if not order or len(set(order)) < len(order) or order[0] >= T or order[-1] < 0:
        raise SSDiffError(
            f"The timesteps {list(timesteps)} are not a schedule; "
            f"give at least one, each once, from 0 to {T - 1}."
        )
    a = alphas_cumprod()[list(order)]
    a_next = np.append(a[1:], 1.0)
    c1 = np.sqrt((1 - a_next) / (1 - a))
    c0 = np.sqrt(a_next) - c1 * np.sqrt(a)
    told = range(len(order) - 1, -1, -1) if sampler == "released" else order
    rows = zip(told, c0, c1, strict=True)
    return Schedule(sampler, order, tuple(Step(float(t), float(p), float(q)) for t, p, q in rows))


def sample(
    denoise: Callable[[Array, float], Array],
    lms: Array,
    x: Array,
    schedule: Schedule,
    on_step: Callable[[Array, Array], object] = lambda x, image: None,
) -> Array:
    """Run the sampling loop.

    Args:
        denoise: the network's residual ``[N, C, H, W]`` for a state of that shape and a timestep.
        lms: upsampled multispectral image ``[N, C, H, W]``, 0..1 of full scale.
        x: unit normal noise of the same shape.
        schedule: from :func:`make_schedule`.
        on_step: called after each step with the new state and the step's image.

    Returns:
        The image ``[N, C, H, W]`` in 0..1.
    """
    image = lms
    for t, c0, c1 in schedule.steps:
        image = (denoise(x, t) + lms).clip(0, 1)
        x0 = image if schedule.sampler == "released" else image - lms
        x = c0 * x0 + c1 * x
        on_step(x, image)
    return image
