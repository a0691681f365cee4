"""Statistics of runs: percentiles, and ratios of medians with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rounds = Sequence[Sequence[float]]
"""Values of all runs, grouped by round."""
_MIN_RUNS = {50: 1, 95: 20, 99: 100}
"""Runs needed for a percentile; with fewer it would just be the largest value."""
_RESAMPLES = 500
"""Bootstrap resamples."""


def percentile(rounds: Rounds, percent: int) -> float | None:
    """A percentile of all runs, linearly interpolated; None if there are too few runs.

    Args:
        rounds: values of all runs.
        percent: 50, 95 or 99.
    """
    values = np.concatenate([np.asarray(runs, float) for runs in rounds])
    return float(np.percentile(values, percent)) if len(values) >= _MIN_RUNS[percent] else None


class Ratio(NamedTuple):
    """Ratio of two medians with its 95 % bootstrap confidence interval."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the confidence interval excludes 1."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(numerator: Rounds, denominator: Rounds) -> Ratio:
    """Ratio of the medians of two sets of runs.

    The bootstrap (Efron & Tibshirani, 1993) is hierarchical: it draws rounds, and runs within each
    round, with replacement, so that variation between processes counts and not only that within.
    """
    rng = np.random.default_rng(0)
    upper, lower = (
        float(np.median(np.concatenate([*map(np.asarray, rounds)])))
        for rounds in (numerator, denominator)
    )
    resampled = _resampled_medians(numerator, rng) / _resampled_medians(denominator, rng)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Ratio(upper / lower, float(low), float(high))


def _resampled_medians(rounds: Rounds, rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of bootstrap resamples."""
    values = [np.asarray(runs, float) for runs in rounds]
    medians = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        drawn = (values[which] for which in rng.integers(len(values), size=len(values)))
        runs = [one[rng.integers(len(one), size=len(one))] for one in drawn]
        medians[index] = np.median(np.concatenate(runs))
    return medians
