"""Numbers out of runs: percentiles, and ratios with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rounds = Sequence[Sequence[float]]
"""Values of runs, round by round."""
_NEEDED = {50: 1, 95: 20, 99: 100}
"""Runs that a percentile takes: below, it would be no more than the largest value."""
_RESAMPLES = 500


def percentile(rounds: Rounds, percent: int) -> float | None:
    """A percentile of all runs, linear between two of them; None if they are too few."""
    values = np.concatenate([np.asarray(one, float) for one in rounds])
    return float(np.percentile(values, percent)) if len(values) >= _NEEDED[percent] else None


class Ratio(NamedTuple):
    """Of two medians, and where 95 % of its bootstrap lie."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(over: Rounds, under: Rounds) -> Ratio:
    """The median of all runs over that of others.

    The bootstrap (Efron & Tibshirani, 1993) draws rounds, and runs within each, with replacement:
    what differs from process to process counts, not the scatter within one alone.
    """
    rng = np.random.default_rng(0)
    medians = [float(np.median(np.concatenate([*map(np.asarray, r)]))) for r in (over, under)]
    drawn = _medians(over, rng) / _medians(under, rng)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Ratio(medians[0] / medians[1], float(low), float(high))


def _medians(rounds: Rounds, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of resamples."""
    values = [np.asarray(one, float) for one in rounds]
    found = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        chosen = (values[which] for which in rng.integers(len(values), size=len(values)))
        runs = [one[rng.integers(len(one), size=len(one))] for one in chosen]
        found[index] = np.median(np.concatenate(runs))
    return found
