"""The noise schedule, sampling schedules as tables of coefficients, and the sampling loop.

Notation, after DDIM (Song et al., 2021) with eta = 0 and a network that predicts ``x0``:

- ``t``: training timestep, 0 (almost clean) to 999 (pure noise);
- ``a``: cumulative product alpha_bar at ``t`` (Nichol & Dhariwal, 2021, eq. 17); ``a'``: the same
  at the next, smaller timestep of the schedule, 1 after the last;
- one step: ``x' = c0 x0 + c1 x`` with ``c1 = sqrt((1 - a') / (1 - a))`` and
  ``c0 = sqrt(a') - c1 sqrt(a)``. This form avoids a division by ``sqrt(a)``, which is almost 0 at
  ``t = 999``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.arguments import whole
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import SAMPLERS, Sampler

T = 1000
"""Number of training timesteps."""
Array = TypeVar("Array", bound=Any)
"""A numpy array or a torch tensor; the loop uses only operations that both have."""


def alphas_cumprod() -> NDArray[np.float64]:
    """Cumulative products alpha_bar ``[1000]`` of the cosine schedule, s = 0.008, beta <= 0.999.

    Nichol & Dhariwal (2021), eq. 17.
    """
    curve = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    return np.cumprod(1 - betas)


def spaced_timesteps(steps: int) -> tuple[int, ...]:
    """Evenly spaced timesteps for a number of steps, largest first.

    The usual "ddimN" rule: the first stride for which ``range(0, 1000, stride)`` has N members.
    Some N have no such stride (37, 41, ...); they get ``floor(1000 k / N)``. A single step starts
    from pure noise, so it is ``(999,)``.

    Args:
        steps: number of steps, 1..1000.

    Raises:
        InputError: if it is out of range.
    """
    steps = whole("steps", steps)
    if not 1 <= steps <= T:
        raise InputError(f"{steps} steps were asked for; give 1 to {T}.", parameter="steps")
    if steps == 1:
        return (T - 1,)
    stride = -(-T // steps)
    ascending: Sequence[int] = range(0, T, stride)
    if len(ascending) != steps:
        ascending = [T * k // steps for k in range(steps)]
    return tuple(reversed(ascending))


AUTHORS_TIMESTEPS = spaced_timesteps(10)
"""Timesteps at which the authors' code samples: 900, 800, ..., 0."""


class Step(NamedTuple):
    """One step of the loop: ``x' = c0 x0 + c1 x``, with ``x0`` from the network at ``t``."""

    t: float
    """Time input of the network, 0..999."""
    c0: float
    c1: float


@dataclass(frozen=True)
class Schedule:
    """Time inputs and coefficients of a sampler for each step."""

    sampler: Sampler
    timesteps: tuple[int, ...]
    """Training timesteps, largest first."""
    steps: tuple[Step, ...]
    """One step per timestep."""

    @property
    def updates(self) -> NDArray[np.float32]:
        """Coefficients for step graphs, ``[steps, 3]``.

        The next state is the sum of the step's image, the state and ``lms``, each multiplied by its
        coefficient. After the last step it is the image itself.
        """
        residual = float(self.sampler == "consistent")
        table = np.array([(c0, c1, -c0 * residual) for _, c0, c1 in self.steps], np.float32)
        table[-1] = 1, 0, 0
        return table


def make_schedule(timesteps: Sequence[int], sampler: Sampler = "consistent") -> Schedule:
    """Make the schedule of a sampler over explicit timesteps.

    Args:
        timesteps: distinct integers 0..999, in any order; they are processed largest first.
        sampler: ``consistent`` diffuses the residual and passes the timestep to the network, as in
            training. ``released`` reproduces the authors' code: it diffuses the image and passes
            the index of the timestep in the list, counted from the smallest.

    Raises:
        InputError: on an empty list, a repeated or out-of-range timestep, an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"The sampler {sampler!r} is unknown; choose {' or '.join(SAMPLERS)}.")
    order = tuple(sorted((whole("timesteps", t) for t in timesteps), reverse=True))
    if not order or len(set(order)) < len(order) or order[0] >= T or order[-1] < 0:
        raise InputError(
            f"The timesteps {list(timesteps)} are not a schedule; "
            f"give at least one, each once, from 0 to {T - 1}."
        )
    a = alphas_cumprod()[list(order)]
    a_next = np.append(a[1:], 1.0)
    c1 = np.sqrt((1 - a_next) / (1 - a))
    c0 = np.sqrt(a_next) - c1 * np.sqrt(a)
    times = range(len(order) - 1, -1, -1) if sampler == "released" else order
    rows = zip(times, c0, c1, strict=True)
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
        denoise: returns the residual ``[N, C, H, W]`` for a state of that shape and a time input.
        lms: upsampled multispectral image ``[N, C, H, W]``, 0..1 of full scale.
        x: unit normal noise ``[N, C, H, W]``.
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
