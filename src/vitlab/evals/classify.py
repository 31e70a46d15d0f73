"""Classification on every example of a source: top-1, top-5, loss, per class, confusion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.labels import Labels, distinct, is_multi_label, renumber
from vitlab.data.source import Source, class_indices
from vitlab.errors import DataError
from vitlab.evals.features import map_source
from vitlab.evals.interval import wilson_interval
from vitlab.evals.multilabel import MultiLabelPredictions, refuse_unlabelled
from vitlab.models.classifier import Classifier, head_of, probabilities_of
from vitlab.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Predictions:
    """What a model says of every example: probabilities [n, k], labels [n], and the examples' names, in the source's order."""

    probabilities: NDArray[np.float32]
    labels: Labels
    keys: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of every example."""
        return self.probabilities.argmax(axis=1)

    @property
    def losses(self) -> NDArray[np.float64]:
        """The negative log-probability of every example's own class."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return -np.log(np.maximum(own, np.finfo(np.float32).tiny))

    def top(self, k: int) -> float:
        """Return the share of examples whose class is among the `k` most probable (all classes count when there are fewer)."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        before = np.arange(len(self.classes)) < self.labels[:, None]
        rank = ((self.probabilities > own[:, None]) | ((self.probabilities == own[:, None]) & before)).sum(axis=1)
        return float((rank < k).mean())

    def confusion(self) -> NDArray[np.int64]:
        """Return how many examples of each class (rows) were taken for each class (columns): [k, k]."""
        matrix = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix

    def per_class(self) -> dict[str, float]:
        """Return the top-1 of every class that has examples; names that repeat are numbered."""
        matrix = self.confusion()
        counts = matrix.sum(axis=1)
        return {name: float(matrix[i, i] / counts[i]) for i, name in enumerate(distinct(self.classes)) if counts[i]}

    def metrics(self) -> dict[str, float]:
        """Return the summary: "top1", "top5", "loss", "count"."""
        return {
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": float(self.losses.mean()),
            "count": float(len(self.labels)),
        }

    def summary(self) -> str:
        """Return the numbers in a line, for people."""
        low, high = wilson_interval(self.top(1), len(self.labels))
        return (
            f"top-1 {100 * self.top(1):.1f} % on {len(self.labels):,} images "
            f"(95 % interval {100 * low:.1f}–{100 * high:.1f}), top-5 {100 * self.top(5):.1f} %"
        )

    def table(self) -> list[str]:
        """Return the numbers in lines, for people."""
        values, (low, high) = self.metrics(), wilson_interval(self.top(1), len(self.labels))
        return [
            f"top-1  {100 * values['top1']:6.2f} %   (95 % interval {100 * low:.1f}–{100 * high:.1f})",
            f"top-5  {100 * values['top5']:6.2f} %",
            f"loss   {values['loss']:6.4f}",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for programs."""
        interval = list(wilson_interval(self.top(1), len(self.labels)))
        return {**self.metrics(), "top1_interval": interval, "per_class": self.per_class()}


AnyPredictions = Predictions | MultiLabelPredictions


def classify(
    model: Classifier, source: Source, batch_size: int = 64, workers: int = 0, ranks: Ranks = ALONE
) -> AnyPredictions:
    """Return the predictions of `model` for every example of `source`, each exactly once; the `ranks` share the work.

    Labels are mapped by class name to the model's classes. Where the model or the source is for several labels an image the
    predictions are `MultiLabelPredictions`; so a model of one class an image can be counted by several right answers.

    Raises:
        DataError: the source has a class that the model does not know, or no label at all, or the model has no head.
        BadImagesError: some images cannot be decoded; each is named.
    """
    classes = model.classes or source.classes
    if model.settings.num_classes != len(classes):
        raise DataError(
            str(source),
            f"has {len(classes)} classes, {head_of(model)}",
            "fine-tune it first",
        )
    refuse_unlabelled(source)
    labels = renumber(source.labels, class_indices(source.classes, classes, str(source)))
    if model.probabilities == "sigmoid":  # in float64, where what is nearly certain is not yet 1
        logits, keys = map_source(model, source, model, batch_size, workers, ranks)
        return MultiLabelPredictions(logits.double().sigmoid().numpy(), labels, keys, classes)
    probabilities, keys = map_source(
        model, source, lambda images: probabilities_of(model, model(images)), batch_size, workers, ranks
    )
    kind = MultiLabelPredictions if is_multi_label(labels) else Predictions
    return kind(probabilities.numpy(), labels, keys, classes)


@dataclass
class Accuracy:
    """Evaluator: top-1, top-5 and loss on a source, or mAP and more where images have several labels.

    `last` keeps the predictions of the latest call for reports.
    """

    source: Source
    batch_size: int = 64
    workers: int = 0
    ranks: Ranks = ALONE
    last: AnyPredictions | None = field(default=None, init=False)

    def __call__(self, model: Classifier) -> Mapping[str, float]:
        """Return "top1", "top5", "loss" and "count", or what `MultiLabelPredictions.metrics` does."""
        self.last = classify(model, self.source, self.batch_size, self.workers, self.ranks)
        return self.last.metrics()
