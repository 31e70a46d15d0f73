"""Images of several labels or none: average precision of every class, and what stands above a threshold."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.labels import Labels, distinct, is_multi_label, multi_hot
from vitlab.data.source import Source
from vitlab.errors import DataError
from vitlab.evals.interval import wilson_interval

THRESHOLD = 0.5
"""A class of at least this probability is one that the model names; to calibrate it is the user's business."""


@dataclass(frozen=True)
class MultiLabelPredictions:
    """What a model says of every example: probabilities [n, k], labels [n, m] padded with -1, the examples' names, in order."""

    probabilities: NDArray[np.floating]
    labels: Labels
    keys: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """Which classes each example has: [n, k]."""
        return multi_hot(self.labels, len(self.classes))

    @cached_property
    def named(self) -> NDArray[np.bool_]:
        """Which classes the model names, those at or above the threshold: [n, k]."""
        return self.probabilities >= THRESHOLD

    @property
    def labelled(self) -> int:
        """How many examples have a label."""
        return int(self.truth.any(axis=1).sum())

    @property
    def losses(self) -> NDArray[np.float64]:
        """The cross-entropy of every example, summed over the classes, each by itself."""
        right = np.where(self.truth, self.probabilities, 1 - self.probabilities.astype(np.float64))
        return -np.log(np.maximum(right, np.finfo(np.float64).tiny)).sum(axis=1)

    def top(self, k: int) -> float:
        """Return the share of labelled examples with one of their classes among the `k` most probable; others do not count.

        It is how ImageNet is counted by its ReaL labels (Beyer et al. 2020).
        """
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        hits = np.take_along_axis(self.truth, order, axis=1).any(axis=1)
        return float(hits.sum() / self.labelled)

    def per_class(self) -> dict[str, float]:
        """Return the average precision of every class that has examples; names that repeat are numbered."""
        present, names = np.flatnonzero(self.truth.any(axis=0)), distinct(self.classes)
        return {names[c]: average_precision(self.probabilities[:, c], self.truth[:, c]) for c in present}

    def precision(self) -> float:
        """Return the share of the named classes, of all examples together, that are right; 0 where none is named."""
        return float((self.named & self.truth).sum() / max(1, self.named.sum()))

    def recall(self) -> float:
        """Return the share of the labels, of all examples together, that the model names."""
        return float((self.named & self.truth).sum() / self.truth.sum())

    def metrics(self) -> dict[str, float]:
        """Return the summary: "map" (the mean over classes), "top1", "precision", "recall", "loss", "labelled" and "count"."""
        return {
            "map": float(np.mean(list(self.per_class().values()))),
            "top1": self.top(1),
            "precision": self.precision(),
            "recall": self.recall(),
            "loss": float(self.losses.mean()),
            "labelled": float(self.labelled),
            "count": float(len(self.labels)),
        }

    def summary(self) -> str:
        """Return the numbers in a line, for people."""
        values = {name: f"{100 * value:.1f} %" for name, value in self.metrics().items()}
        return (
            f"mAP {values['map']} on {len(self.labels):,} images, top-1 {values['top1']}, "
            f"precision {values['precision']} and recall {values['recall']} at {THRESHOLD:.0%}"
        )

    def table(self) -> list[str]:
        """Return the numbers in lines, for people."""
        values = self.metrics()
        low, high = wilson_interval(values["top1"], self.labelled)
        return [
            f"mAP        {100 * values['map']:6.2f} %   (the mean over {len(self.per_class())} classes)",
            f"precision  {100 * values['precision']:6.2f} %   (of classes at or above {THRESHOLD:.0%})",
            f"recall     {100 * values['recall']:6.2f} %",
            f"top-1      {100 * values['top1']:6.2f} %   (95 % interval {100 * low:.1f}–{100 * high:.1f}, "
            f"{self.labelled:,} labelled images)",
            f"loss       {values['loss']:6.4f}",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for programs."""
        interval = list(wilson_interval(self.top(1), self.labelled))
        return {**self.metrics(), "top1_interval": interval, "threshold": THRESHOLD, "per_class": self.per_class()}


def average_precision(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Return Σ (R_i - R_{i-1}) P_i over the distinct scores, highest first: precision averaged over the recall it is had at.

    Equal scores are one step, so that the order of the examples does not matter; nothing is interpolated. `truth` [n] has a True.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of every group of equal scores
    hits = np.cumsum(truth[order])[last]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (last + 1)).sum() / hits[-1])


def refuse_unlabelled(source: Source) -> None:
    """Refuse to evaluate on no images, or on images none of which has a label.

    Raises:
        DataError: it is so.
    """
    if not len(source):
        raise DataError(str(source), "has no images", "give more, or name others to evaluate on")
    if is_multi_label(source.labels) and not (source.labels >= 0).any():
        raise DataError(str(source), "has no image with a label", "evaluate on one that has")
