"""Images of several labels or none: average precision of every class, and what stands above a threshold."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.labels import Labels, distinct, is_multi_label, multi_hot
from vitlab.data.source import Source
from vitlab.errors import DataError
from vitlab.evals.calibration import Calibration, calibrate
from vitlab.evals.interval import wilson_interval

TOP = 5
"""So many classes of an image are kept in order; more are wanted by nobody."""
THRESHOLD = 0.5
"""A class of at least this probability is one that the model names; to calibrate it is the user's business."""


@dataclass(frozen=True)
class MultiLabelPredictions:
    """What a model says of every example: probabilities [n, k], labels [n, m] padded with -1, the examples' names, in order.

    `exclusive` says that the probabilities of an image's classes sum to one: a model of one class an image was counted by several
    right answers, as ImageNet's ReaL labels and ObjectNet do. Then top-1 and top-5 are the numbers to look at.
    """

    probabilities: NDArray[np.floating]
    labels: Labels
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    exclusive: bool = False

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """Which classes each example has: [n, k]."""
        return multi_hot(self.labels, len(self.classes))

    @cached_property
    def named(self) -> NDArray[np.bool_]:
        """Which classes the model names, those at or above the threshold: [n, k]."""
        return self.probabilities >= THRESHOLD

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Which examples have a label, and count for top-1 and top-5: [n]."""
        return np.asarray(self.truth.any(axis=1))

    @property
    def labelled(self) -> int:
        """How many examples have a label."""
        return int(self.counted.sum())

    @cached_property
    def leaders(self) -> NDArray[np.int64]:
        """The most probable classes of every example, most probable first: [n, 5], or [n, k] where there are fewer."""
        return most_probable(self.probabilities, TOP)

    @property
    def calibration(self) -> Calibration | None:
        """How sure the model is of its most probable class, and how often that is a label; None where it names any number."""
        if not self.exclusive:
            return None
        return calibrate(self.probabilities.max(axis=1)[self.counted], self.hits(1)[self.counted])

    @property
    def losses(self) -> NDArray[np.float64]:
        """The cross-entropy of every example, summed over the classes, each by itself."""
        right = np.where(self.truth, self.probabilities, 1 - self.probabilities.astype(np.float64))
        return -np.log(np.maximum(right, np.finfo(np.float64).tiny)).sum(axis=1)

    def hits(self, k: int) -> NDArray[np.bool_]:
        """Return of every example whether one of its classes is among the `k` most probable, at most 5: [n]."""
        return np.asarray(np.take_along_axis(self.truth, self.leaders[:, :k], axis=1).any(axis=1))

    def top(self, k: int) -> float:
        """Return the share of labelled examples with one of their classes among the `k` most probable; others do not count.

        It is how ImageNet is counted by its ReaL labels (Beyer et al. 2020), and ObjectNet by the ImageNet classes that stand for
        each of its own: a prediction may be any of all 1,000 (Barbu et al. 2019; Kolesnikov et al. 2020).
        """
        return float(self.hits(k).sum() / self.labelled)

    def per_class(self) -> dict[str, float]:
        """Return the average precision of every class that has examples; names that repeat are numbered."""
        return self._per_class

    @cached_property
    def _per_class(self) -> dict[str, float]:
        present, names = np.flatnonzero(self.truth.any(axis=0)), distinct(self.classes)
        return {names[c]: average_precision(self.probabilities[:, c], self.truth[:, c]) for c in present}

    def precision(self) -> float:
        """Return the share of the named classes, of all examples together, that are right; 0 where none is named."""
        return float((self.named & self.truth).sum() / max(1, self.named.sum()))

    def recall(self) -> float:
        """Return the share of the labels, of all examples together, that the model names."""
        return float((self.named & self.truth).sum() / self.truth.sum())

    def metrics(self) -> dict[str, float]:
        """Return the summary: "map" (the mean over classes), "top1", "top5", "precision", "recall", "loss", "labelled", "count"."""
        return {
            "map": float(np.mean(list(self.per_class().values()))),
            "top1": self.top(1),
            "top5": self.top(5),
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
        values, calibration = self.metrics(), self.calibration
        top1, top5 = (shown_share(values[name], self.labelled) for name in ("top1", "top5"))
        precision = f"mAP        {100 * values['map']:6.2f} %   (the mean over {len(self.per_class())} classes)"
        if calibration is not None:
            error = f"ECE        {100 * calibration.ece:6.2f} %   (expected calibration error, {len(calibration.counts)} bins)"
            return [
                f"top-1      {top1}, {self.labelled:,} images; any of an image's labels is right",
                f"top-5      {top5}",
                error,
                precision,
            ]
        return [
            precision,
            f"precision  {100 * values['precision']:6.2f} %   (of classes at or above {THRESHOLD:.0%})",
            f"recall     {100 * values['recall']:6.2f} %",
            f"top-1      {top1}, {self.labelled:,} labelled images",
            f"top-5      {top5}",
            f"loss       {values['loss']:6.4f}",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for programs."""
        intervals = {f"top{k}_interval": list(wilson_interval(self.top(k), self.labelled)) for k in (1, TOP)}
        calibration = {} if self.calibration is None else {"calibration": self.calibration.as_json()}
        return {**self.metrics(), **intervals, **calibration, "threshold": THRESHOLD, "per_class": self.per_class()}


def most_probable(probabilities: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the `count` (or k) most probable classes of every example of [n, k], of equally probable ones the first first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :count]


def shown_share(share: float, total: int) -> str:
    """Return a share of `total` images with its interval, for people."""
    low, high = wilson_interval(share, total)
    return f"{100 * share:6.2f} %   (95 % interval {100 * low:.1f}–{100 * high:.1f})"


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
