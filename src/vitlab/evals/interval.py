"""How sure a number is: of a share counted in so many trials, of a mean over tasks, of a mean over runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitlab.errors import DataError

DRAWS = 10_000
"""Resamples of a bootstrap: the ends of its interval then move by about a hundredth of its width with the seed."""


def wilson_interval(correct: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion, `correct` being the share seen in `total` trials (Wilson 1927)."""
    centre = correct + z * z / (2 * total)
    spread = z * math.sqrt(correct * (1 - correct) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bootstrap_interval(
    values: Sequence[float] | Sequence[Sequence[float]] | NDArray[np.floating],
    level: float = 0.95,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over tasks (Efron 1979), the same for the same `seed`.

    `values` is [tasks], or [tasks, runs]: then tasks are drawn, and of each drawn task its runs. It says how the mean would move
    with other tasks of the kind. Of few tasks it is too narrow: in simulations (normal and skewed values) the interval of 95 %
    held the mean in 91 to 93 % of cases with 19 tasks, and in 77 to 79 % with 4. BCa held it one point more often with 19 tasks
    and up to five less often with 3, so that the plain percentiles stay.

    Raises:
        DataError: there are no values, or one is not a finite number.
    """
    table = _checked(values)
    table = table[:, None] if table.ndim == 1 else table
    tasks, runs = table.shape
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, (1 << 22) // table.size)  # so many draws at a time take a few tens of megabytes
    for start in range(0, draws, step):
        count = min(step, draws - start)
        chosen = rng.integers(tasks, size=(count, tasks, 1))
        again = rng.integers(runs, size=(count, tasks, runs)) if runs > 1 else 0
        means[start : start + count] = table[chosen, again].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class OverRuns:
    """The mean over runs and the sample standard deviation (of n - 1; None for a single run)."""

    mean: float
    std: float | None
    runs: int

    def __str__(self) -> str:
        if self.std is None:
            return f"{100 * self.mean:.2f} % (1 run)"
        return (
            f"{100 * self.mean:.2f} ± {100 * self.std:.2f} % (mean and sample standard deviation of {self.runs} runs)"
        )


def over_runs(values: Sequence[float] | NDArray[np.floating]) -> OverRuns:
    """Return mean and sample standard deviation of a share over runs: [n]. It is how table 2 gives its numbers.

    Raises:
        DataError: there are no values, or one is not a finite number.
    """
    array = _checked(values)
    std = float(array.std(ddof=1)) if len(array) > 1 else None
    return OverRuns(float(array.mean()), std, len(array))


def _checked(values: Sequence[float] | Sequence[Sequence[float]] | NDArray[np.floating]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if not array.size:
        raise DataError("the mean", "is of no values", "give at least one")
    if not np.isfinite(array).all():
        what = f"is of {int((~np.isfinite(array)).sum())} values of {array.size} that are not finite numbers"
        raise DataError("the mean", what, "leave out what was not measured, and say so")
    return array
