"""Calibration: whether a model that is 80 % sure is right in 80 of 100 cases (Guo et al. 2017)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""As Guo et al. 2017, and most who report the error since."""


@dataclass(frozen=True)
class Calibration:
    """How often answers are right by how sure the model is of them, in bins of equal width.

    Bin i is of confidences above i / bins, up to (i + 1) / bins inclusive: `counts`, mean `confidence` and `accuracy` are [bins];
    the last two are 0 where a bin is empty.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @cached_property
    def gaps(self) -> NDArray[np.float64]:
        """How far accuracy is from confidence in each bin: [bins]."""
        return np.abs(self.accuracy - self.confidence)

    @property
    def ece(self) -> float:
        """The expected calibration error: the gaps averaged by how many answers each bin has (Guo et al. 2017, equation 3)."""
        return float((self.counts * self.gaps).sum() / self.counts.sum())

    @property
    def mce(self) -> float:
        """The maximum calibration error: the largest gap of a bin that is not empty (equation 5)."""
        return float(self.gaps.max())

    def as_json(self) -> dict[str, Any]:
        """Return the errors and the bins for programs."""
        rows = zip(self.counts.tolist(), self.confidence.tolist(), self.accuracy.tolist(), strict=True)
        bins = [{"count": count, "confidence": sure, "accuracy": right} for count, sure, right in rows]
        return {"ece": self.ece, "mce": self.mce, "bins": bins}


def calibrate(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Return the calibration of answers given with `confidence` [n] between 0 and 1, of which some are `correct` [n]."""
    sure = confidence.astype(np.float64)
    edges = np.arange(bins + 1) / bins
    places = np.clip(np.searchsorted(edges, sure) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    shared = np.maximum(counts, 1)
    return Calibration(
        counts,
        np.bincount(places, sure, minlength=bins) / shared,
        np.bincount(places, correct.astype(np.float64), minlength=bins) / shared,
    )


def brier_score(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the mean over examples of the squared distance from probabilities [n, k] to the one-hot truth (Brier 1950): 0 to 2."""
    squares = np.einsum("nk,nk->n", probabilities, probabilities, dtype=np.float64)
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float((squares - 2 * own + 1).mean())
